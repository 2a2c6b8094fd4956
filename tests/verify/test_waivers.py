"""Findings can be accepted: by code and place, with a reason, until a day."""

from __future__ import annotations

import tempfile
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symcache.errors import UsageError
from symcache.verify import Finding, FindingCode, Level, VerifyReport, Waiver, apply_waivers, load_waivers

TODAY = date(2026, 11, 24)
WAIVER = """
[[waiver]]
code = "cache-missing"
build = "22G*"
arch = "x86_64h"
reason = "no Intel Mac in the lab yet"
expires = 2026-12-31
"""


def load(text: str) -> tuple[Waiver, ...]:
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        return load_waivers(Path(file.name))


def report(*findings: Finding) -> VerifyReport:
    made = VerifyReport(Level.BLOBS)
    made.add(findings)
    return made


MISSING_HASWELL = Finding(FindingCode.CACHE_MISSING, "no x86_64h", "22G830", arch="x86_64h")
MISSING_ARM = Finding(FindingCode.CACHE_MISSING, "no arm64e", "22G830", arch="arm64e")


def test_a_waived_finding_does_not_count_and_its_reason_is_kept() -> None:
    checked = report(MISSING_HASWELL)
    apply_waivers(checked, load(WAIVER), TODAY)
    assert checked.complete
    assert checked.notes == []
    assert checked.to_json()["waived"] == [
        {
            "code": "cache-missing",
            "message": "no x86_64h: harvest a host that has it",
            "build": "22G830",
            "path": "",
            "arch": "x86_64h",
            "uuid": "",
            "cache_uuid": "",
            "reason": "no Intel Mac in the lab yet",
            "until": "2026-12-31",
        }
    ]


def test_what_it_does_not_name_still_counts() -> None:
    other_build = Finding(FindingCode.CACHE_MISSING, "no x86_64h", "21G1", arch="x86_64h")
    other_code = Finding(FindingCode.NOT_SEALED, "x", "22G830", arch="x86_64h")
    checked = report(MISSING_HASWELL, MISSING_ARM, other_build, other_code)
    apply_waivers(checked, load(WAIVER), TODAY)
    assert checked.findings == [f.with_step() for f in (MISSING_ARM, other_build, other_code)]


@pytest.mark.parametrize(("today", "complete"), [(date(2026, 12, 31), True), (date(2027, 1, 1), False)])
def test_it_holds_through_its_last_day(today: date, complete: bool) -> None:
    checked = report(MISSING_HASWELL)
    apply_waivers(checked, load(WAIVER), today)
    assert checked.complete is complete
    assert any("expired" in note for note in checked.notes) is not complete


def test_one_that_excuses_nothing_is_named_for_removal() -> None:
    checked = report()
    apply_waivers(checked, load(WAIVER), TODAY)
    (note,) = checked.notes
    assert "excuses nothing" in note
    assert "cache-missing build=22G* arch=x86_64h" in note


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (WAIVER.replace("cache-missing", "no-such-code"), "code"),
        (WAIVER.replace('reason = "no Intel Mac in the lab yet"', ""), "reason"),
        (WAIVER.replace('"no Intel Mac in the lab yet"', '""'), "reason"),
        (WAIVER.replace("expires = 2026-12-31", ""), "expires"),
        (WAIVER.replace("2026-12-31", '"some day"'), "expires"),
        (WAIVER + 'because = "typing error"', "because"),
        ("[[waiver", "TOML"),
        (f"x = {'[' * 20_000}", "TOML"),
    ],
)
def test_a_waiver_without_code_reason_or_day_is_refused(text: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        load(text)


@given(st.text(max_size=300))
def test_any_text_is_waivers_or_wrong_use(text: str) -> None:
    try:
        load(text)
    except UsageError:
        pass
