"""How far a harvest says to be."""

from __future__ import annotations

from symcache_provisioning import Amount
from symcache_provisioning.progress import NoProgress, Whole


class Seen(NoProgress):
    """Keeps what was told."""

    def __init__(self) -> None:
        self.amounts: list[Amount] = []

    def update(self, amount: Amount) -> None:
        self.amounts.append(amount)


def test_without_caches_nobody_says_that_all_is_done_before_it_is() -> None:
    seen = Seen()
    whole = Whole(seen, copies=False, keeps=True, in_guest=False)
    whole.expect(0)
    whole._start -= 100
    whole.copied_file(1000)
    whole.step("more")
    assert (seen.amounts[-1].share, seen.amounts[-1].seconds_left) == (0.0, None)
    whole.copied_all()
    whole.step("storing")
    assert seen.amounts[-1].share == 1.0


def test_what_is_copied_twice_counts_once() -> None:
    seen = Seen()
    whole = Whole(seen, copies=True, keeps=True, in_guest=False)
    whole.expect(1000)
    whole.copied(1000)
    whole.copied(1000)
    whole.kept(2000)
    whole.step("x")
    assert seen.amounts[-1].copied <= seen.amounts[-1].to_copy
    assert seen.amounts[-1].share < 1
