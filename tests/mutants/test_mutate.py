"""A mutant is the module with one change, known by its line's text wherever that stands."""

from __future__ import annotations

from tests.mutants.mutate import mutants

SOURCE = '''
LIMIT = 1 << 4  # é

def check(size: int = 0) -> bool:
    """Say no."""
    if size > LIMIT and not done():
        raise ValueError("more than 16")
    note(size)
    return True
'''


def test_each_change_is_made_once() -> None:
    made = {(mutant.text, mutant.mutation): mutant for mutant in mutants(SOURCE)}
    condition, before = "if size > LIMIT and not done():", SOURCE.splitlines()
    changed = {
        ("LIMIT = 1 << 4  # é", "* 1000"): "LIMIT = (1 << 4) * 1000  # é",
        ("LIMIT = 1 << 4  # é", "/ 1000"): "LIMIT = (1 << 4) // 1000  # é",
        ("def check(size: int = 0) -> bool:", "0 + 1"): "def check(size: int = 1) -> bool:",
        (condition, "if True"): "    if (True):",
        (condition, "if False"): "    if (False):",
        (condition, "And to Or"): "    if (size > LIMIT or not done()):",
        (condition, "Gt to GtE"): "    if (size >= LIMIT) and not done():",
        (condition, "not dropped"): "    if size > LIMIT and (done()):",
        ("note(size)", "left out"): "    pass",
        ("return True", "return None"): "    return None",
        ("return True", "True to False"): "    return False",
    }
    assert made.keys() == changed.keys()
    for what, line in changed.items():
        after = made[what].source.splitlines()
        assert [new for old, new in zip(before, after, strict=True) if old != new] == [line]
    # A limit is noticed where it is used, a default wherever its function runs.
    assert made["LIMIT = 1 << 4  # é", "* 1000"].lines == {2, 6}
    assert made["def check(size: int = 0) -> bool:", "0 + 1"].lines == set(range(4, 10))


def test_the_same_changes_come_first_when_lines_move() -> None:
    moved = mutants("# A comment\n" + SOURCE)
    assert [(mutant.text, mutant.mutation) for mutant in mutants(SOURCE)] == [(m.text, m.mutation) for m in moved]
