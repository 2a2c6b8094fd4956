"""Mangled names, which come out of dumps, reports and binaries: any text behind the marks of each language."""

from __future__ import annotations

from symcache.demangle import demangle

__all__ = ["SEEDS", "one_input"]


def SEEDS() -> list[bytes]:
    """Return a name of each language."""
    return [
        b"_ZN3foo3barEi",
        b"_ZNSt3__110__function6__funcIZ1fvE3$_0NS_9allocatorIS2_EEFvvEEclEv",
        b"_ZN4core3fmt5write17h1234567890abcdefE",
        b"_RNvCs1234_7mycrate3foo",
        b"$s4main1fyyFyycfU_",
        b"_$ss17_assertionFailure__4file4line5flagss5NeverOs12StaticStringV_SSAHSus6UInt32VtF",
        b"___ZN3foo3barEv_block_invoke",
        b"-[Ledger open:]",
    ]


def one_input(data: bytes) -> None:
    """Demangle `data` as it is, and behind each mark."""
    name = data.decode("utf-8", "replace")
    for mark in ("", "_Z", "$s", "_RN", "_T0"):
        if len(demangle(mark + name)) > max(8192, len(mark + name)):
            raise AssertionError("a name without end")
