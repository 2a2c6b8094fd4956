"""What a site's policies say where they say nothing, and how versions and builds are read."""

from __future__ import annotations

import pytest

from symcache.verify import SyncPolicy, is_beta, version_number


@pytest.mark.parametrize(
    ("version", "number"),
    [
        ("13.6.9", (13, 6, 9)),
        ("13.0", (13,)),
        ("13.0.0", (13,)),
        ("10.15.0", (10, 15)),
        ("10.0.4", (10, 0, 4)),
        ("14.1 beta 2", (14, 1)),
        ("0", (0,)),
        ("nonsense", (0,)),
        ("", (0,)),
    ],
)
def test_versions_are_numbers_of_which_zeros_at_the_end_say_nothing(version: str, number: tuple[int, ...]) -> None:
    assert version_number(version) == number


@pytest.mark.parametrize(
    ("build", "extra", "beta"),
    [
        ("26A5353q", "", True),
        ("26A5353", "", True),
        ("26A428a", "", True),
        ("26A428", "", False),
        ("25D770870b", "(a)", False),
        ("26A428", "Beta 2", True),
    ],
)
def test_a_beta_is_told_by_its_build_or_by_the_word(build: str, extra: str, beta: bool) -> None:
    assert is_beta(build, extra) is beta


def test_a_site_that_says_nothing_wants_the_releases_of_three_lines() -> None:
    policy = SyncPolicy.model_validate({})
    assert (policy.from_, policy.before, policy.lines, policy.skip, policy.attempts) == (None, None, 3, (), 5)
    assert (policy.betas, policy.rcs, policy.responses) == (False, False, False)


@pytest.mark.parametrize("said", [{"from": "14"}, {"before": "14"}, {"from": "13.6", "before": "14"}])
def test_either_end_may_be_left_open(said: dict[str, str]) -> None:
    policy = SyncPolicy.model_validate(said)
    assert (policy.from_, policy.before) == (said.get("from"), said.get("before"))
