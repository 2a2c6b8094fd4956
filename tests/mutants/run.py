"""Running the tests that a change concerns, in a copy of the tree."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import coverage

from tests.mutants.mutate import Mutant

__all__ = ["ROOT", "Group", "Tests", "copy_tree", "fate", "measured"]

ROOT = Path(__file__).parents[2]
_KEPT = ROOT / ".cache" / "mutants"
_PACKAGES = ("symcache", "server", "vm_provisioning")
_PYTEST = (
    *("-m", "pytest", "-q", "-p", "no:cacheprovider"),
    *("-p", "pytest_asyncio.plugin", "-p", "pytest_timeout", "--timeout=60"),
)
_SETTINGS = """\
[run]
parallel = true
sigterm = true
data_file = {data}
context = ${{PYTEST_CURRENT_TEST-}}
include = {include}
"""
_MEMORY_KIB = 12 << 20
"""Of address space: a bound that is not kept should not take the machine down."""


@dataclass(frozen=True)
class Group:
    """Code that keeps promises, and the tests that hold it to them."""

    code: tuple[str, ...]
    tests: tuple[str, ...]
    """What pytest is told."""

    def files(self) -> Iterator[str]:
        """Yield the modules, by their paths in the tree."""
        for name in self.code:
            found = [ROOT / name] if name.endswith(".py") else sorted((ROOT / name).rglob("*.py"))
            yield from (str(path.relative_to(ROOT)) for path in found)


@dataclass(frozen=True)
class Tests:
    """What the tests of a group have executed."""

    seconds: dict[str, float]
    """Of each test that passed, by node id."""
    contexts: dict[str, dict[int, list[str]]]
    """What ran each line of each module: "NODE (setup)", "NODE (call)", "NODE (teardown)", or "" for none of these."""

    def chosen(self, module: str, lines: Set[int], seconds: float) -> list[str]:
        """Return the tests to run for a change of these lines, for so long; none if no test executes them.

        Those in files that are named like the module come first, then the quickest. What ran while something was set
        up, or outside of tests, may be noticed by any test.
        """
        stem = Path(module).stem

        def order(tests: Set[str]) -> list[str]:
            return sorted(tests, key=lambda test: (stem not in test.partition("::")[0], self.seconds[test]))

        by_line = self.contexts.get(module, {})
        contexts = {context for line in lines for context in by_line.get(line, ())}
        direct = {context.rpartition(" ")[0] for context in contexts} & self.seconds.keys()
        tests = order(direct)
        if any(not context.endswith(" (call)") for context in contexts):
            tests += order(self.seconds.keys() - direct)
        until = itertools.accumulate(self.seconds[test] for test in tests)
        # In the order of their files again, or a fixture would be made many times.
        return sorted(test for test, used in zip(tests, until, strict=True) if used <= seconds or test == tests[0])


def copy_tree(target: Path) -> Path:
    """Copy what the tests need."""
    shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(".*", "__pycache__", "build", "dist"))
    return target


def measured(group: Group, copy: Path) -> Tests:
    """Return what the tests of a group execute: kept until a file of the code or of these tests changes."""
    state = hashlib.sha256(repr(group).encode())
    for name in (*_PACKAGES, *group.tests):
        for path in sorted([copy / name, *(copy / name).rglob("*.py")]):
            if path.is_file():
                state.update(path.read_bytes())
    kept = _KEPT / state.hexdigest()[:16]
    if not (kept / "seconds.json").exists():
        print(f"running the tests of {', '.join(group.code)} once, to see what they execute", file=sys.stderr)
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        include = "".join(f"\n    {copy / name}{'' if name.endswith('.py') else '/*'}" for name in group.code)
        (kept / "settings").write_text(_SETTINGS.format(data=kept / "coverage", include=include))
        command = ("-m", "coverage", "run", f"--rcfile={kept / 'settings'}", *_PYTEST, "-p", "tests.mutants.recorder")
        started = {
            "COVERAGE_CORE": "ctrace",  # others know no contexts
            "COVERAGE_PROCESS_START": str(kept / "settings"),
            "SYMCACHE_TEST_DURATIONS": str(kept / "seconds"),
        }
        _run(copy, (*command, *group.tests), 7200, started, kept / "log")
        whole = coverage.Coverage(config_file=str(kept / "settings"))
        whole.combine()
        whole.save()
        (kept / "seconds").rename(kept / "seconds.json")
    data = coverage.CoverageData(str(kept / "coverage"))
    data.read()
    files = {module: file for file in data.measured_files() for module in group.files() if file.endswith(f"/{module}")}
    contexts = {module: data.contexts_by_lineno(file) for module, file in files.items()}
    return Tests(json.loads((kept / "seconds.json").read_text()), contexts)


_ticks = itertools.count(1_000_000_000)


def fate(copy: Path, module: str, mutant: Mutant, tests: list[str]) -> str:
    """Return what becomes of a mutant: "killed", "timed out", "survived", or "never run" by any test."""
    if not tests:
        return "never run"
    path = copy / module
    before, status = path.read_text(), path.stat()
    arguments = copy / "arguments"
    arguments.write_text("\n".join(tests))
    try:
        path.write_text(mutant.source)
        # Compiled files are told apart by the second of the source's time and its size.
        os.utime(path, (next(_ticks),) * 2)
        code = _run(copy, (*_PYTEST, "-x", f"@{arguments}"), 600, {}, copy / "log")
    finally:
        path.write_text(before)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return {0: "survived", None: "timed out"}.get(code, "killed")


def _run(copy: Path, arguments: tuple[str, ...], seconds: float, more: dict[str, str], log: Path) -> int | None:
    """Run Python in a copy, with all that it starts; return its exit code, or None when it took too long."""
    temporary = copy.with_name(f"{copy.name}t")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    environment = {
        "PYTHONPATH": os.pathsep.join((str(copy), str(copy / "server"), str(copy / "vm_provisioning"))),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "TMPDIR": str(temporary),
    }
    command = ["/bin/sh", "-c", f'ulimit -v {_MEMORY_KIB}; exec "$0" "$@"', sys.executable, *arguments]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=copy, env=os.environ | environment | more, stdin=subprocess.DEVNULL,
            stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
