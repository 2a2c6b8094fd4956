"""Names of functions as their source has them: C++ as c++filt writes it, Rust, and Swift as Apple's reports have it."""

from __future__ import annotations

import pytest

from symcache.demangle import demangle

ASSERTION = "_assertionFailure(_:_:file:line:flags:)"


@pytest.mark.parametrize(
    ("mangled", "name"),
    [
        ("_ZN6Ledger4postEi", "Ledger::post(int)"),
        ("__ZNK6Ledger5totalEv", "Ledger::total() const"),
        ("___ZN6Ledger4postEv_block_invoke", "invocation function for block in Ledger::post()"),
        ("_ZN4core3fmt5write17h1234567890abcdefE", "core::fmt::write"),
        ("_RNvCs1234_7mycrate3foo", "mycrate::foo"),
        # In short, as Apple's reports have them.
        ("$ss17_assertionFailure__4file4line5flagss5NeverOs12StaticStringV_SSAHSus6UInt32VtF", ASSERTION),
        ("_$s4main1fyyFyycfU_", "closure #1 in f()"),
        ("$S4main3fooyyF", "foo()"),
    ],
)
def test_languages(mangled: str, name: str) -> None:
    assert demangle(mangled) == name


@pytest.mark.parametrize(
    "name",
    [
        *("main", "-[LedgerBook open:]", "+[NSException raise:format:]", "Ledger::post(int)", "operator+", "", "?"),
        *("__abort_with_payload", "_RC4_set_key", "_Reset", "Zone", "$", "_Z", "$s", "___lldb_unnamed_symbol12"),
        *("__Zoo_", "_ZN", "closure #1 in f()", "_ZN" + "9" * 5000, "_Z" + "N" * 100_000),
    ],
)
def test_other_names_stay(name: str) -> None:
    assert demangle(name) == name


def test_names_that_unfold_without_end_are_bounded() -> None:
    """Each type of it is made of two of the one before."""
    types = ["S_IiiE"]
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    types += [f"S_IS{digits[n]}_S{digits[n]}_E" for n in range(36)]
    assert len(demangle("_Z1f1AIiE" + "".join(types))) <= 8192
