"""`python -m tests.mutants [MODULE[:LINE]…]`: changes code that keeps promises, and prints what no test notices.

Each change is made in a copy of the tree, in which the tests run that execute the changed line. MODULE is part of a
path. Which changes of a module come first is settled by what they are, so that two runs on the same code do the same.
What may survive, and why, is in `accepted.toml`. Exits 1 when anything else does.
"""

from __future__ import annotations

import argparse
import itertools
import os
import queue
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutants.mutate import Mutant, mutants
from tests.mutants.run import ROOT, Group, copy_tree, fate, measured

PROMISES = (
    Group(
        ("symcache/store", "symcache/library", "symcache/files.py", "symcache/wal.py", "symcache/lru_folder.py"),
        (
            *("tests/store", "tests/library", "tests/test_files.py", "tests/test_lru_folder.py", "tests/test_wal.py"),
            *("tests/cli/test_maintenance_commands.py", "--deselect=tests/library/test_killed.py"),
        ),
    ),
    Group(
        ("server/symcache_server/files", "server/symcache_server/http/auth.py"),
        (
            *("tests/server/files", "tests/server/api", "tests/server/lookup", "tests/server/test_trust.py"),
            *("tests/server/http/test_access.py", "tests/server/http/test_tokens.py"),
        ),
    ),
    Group(("symcache/verify",), ("tests/verify", "tests/cli/test_releases.py")),
    Group(
        ("vm_provisioning/symcache_provisioning/ssh",),
        ("tests/vm_provisioning/ssh", "tests/vm_provisioning/sources/test_hostile_guest.py"),
    ),
)
ACCEPTED = Path(__file__).with_name("accepted.toml")
SURVIVED = {"survived", "never run"}


def main() -> int:
    """Try the mutants, print those that survived, and count all."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE[:LINE]", help="only modules whose path contains this")
    parser.add_argument("--each", type=int, default=16, help="changes of one module at most (default: 16; 0: all)")
    parser.add_argument("--seconds", type=float, default=2400, help="begin no change after so long (default: 2400)")
    parser.add_argument("--tests", type=float, default=60, help="seconds of tests for one change (default: 60)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="changes tried at once")
    options = parser.parse_args()
    plan = list(_plan(options.modules, options.each))
    if not plan:
        print("error: no module that keeps promises has such a name", file=sys.stderr)
        return 2
    accepted = [(entry["module"], entry["line"], entry["mutation"]) for entry in _accepted()]
    fates: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(options.jobs) as pool:
        copies: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for number in range(options.jobs):
            copies.put(copy_tree(Path(folder, str(number))))
        tests = {group: measured(group, Path(folder, "0")) for group in dict.fromkeys(group for group, _, _ in plan)}
        end = time.monotonic() + options.seconds

        def run(tried: tuple[Group, str, Mutant]) -> str:
            group, module, mutant = tried
            if time.monotonic() > end:
                return "not tried"
            copy = copies.get()
            try:
                return fate(copy, module, mutant, tests[group].chosen(module, mutant.lines, options.tests))
            finally:
                copies.put(copy)

        for (_, module, mutant), came in zip(plan, pool.map(run, plan), strict=True):
            known = came in SURVIVED and (module, mutant.text, mutant.mutation) in accepted
            fates["accepted" if known else came] += 1
            if came in SURVIVED and not known:
                print(f"{came}: {module}:{mutant.line}: {mutant.mutation}: {mutant.text}", flush=True)
    print(", ".join(f"{count} {came}" for came, count in fates.most_common()))
    return 1 if SURVIVED & fates.keys() else 0


def _plan(names: list[str], each: int) -> Iterator[tuple[Group, str, Mutant]]:
    """Yield what to try: the first change of each module, then the second of each, and so on."""
    tried: list[list[tuple[Group, str, Mutant]]] = []
    gone = {(entry["module"], entry["line"], entry["mutation"]) for entry in _accepted()}
    for group in PROMISES:
        for module in group.files():
            of_module = mutants((ROOT / module).read_text())
            gone -= {(module, mutant.text, mutant.mutation) for mutant in of_module}
            wanted = [
                mutant
                for mutant in of_module
                if not names or any(name in module or _at(name, module, mutant.line) for name in names)
            ]
            tried.append([(group, module, mutant) for mutant in wanted[: each or None]])
    for module, line, mutation in sorted(gone):
        print(f"note: {ACCEPTED.name} has a line that is no more: {module}: {mutation}: {line}", file=sys.stderr)
    for row in itertools.zip_longest(*tried):
        yield from (one for one in row if one is not None)


def _at(name: str, module: str, line: int) -> bool:
    path, _, number = name.rpartition(":")
    return bool(path) and path in module and number == str(line)


def _accepted() -> list[dict[str, str]]:
    listed: list[dict[str, str]] = tomllib.loads(ACCEPTED.read_text()).get("survivor", [])
    return listed


if __name__ == "__main__":
    sys.exit(main())
