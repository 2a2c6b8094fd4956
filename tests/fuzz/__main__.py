"""`python -m tests.fuzz [NAME…] [--seconds N]`: runs every `fuzz_*` module for a bounded time, each in a child process.

Inputs that reached new code are kept in `.cache/fuzz/NAME/corpus` for the next run; those that made a target fail
beside it. Exits 1 when there was a finding, 3 when atheris is missing.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import pkgutil
import re
import subprocess
import sys
import time
from pathlib import Path

import tests.fuzz

_ROOT = Path(__file__).parents[2]
_KEPT = _ROOT / ".cache" / "fuzz"
_INPUT_SECONDS = 20
_MEMORY_MB = 2048
_MAX_INPUT = 1 << 16
_RUNS = re.compile(r"^(?:Done (\d+) runs|#(\d+)\s)", re.MULTILINE)


def main() -> int:
    """Run the targets and print a line for each."""
    options = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    options.add_argument("names", nargs="*", metavar="NAME", help="only targets whose name contains one of these")
    options.add_argument("--seconds", type=float, default=60, help="for all targets together (default: 60)")
    chosen = options.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print(
            "error: atheris is not installed\nnext: pip install 'atheris>=2.3' (Linux, Python older than 3.14)",
            file=sys.stderr,
        )
        return 3
    names = sorted(m.name for m in pkgutil.iter_modules(tests.fuzz.__path__) if m.name.startswith("fuzz_"))
    names = [n for n in names if not chosen.names or any(word in n for word in chosen.names)]
    if not names:
        print("error: no target has such a name", file=sys.stderr)
        return 2
    seconds = max(1, round(chosen.seconds / len(names)))
    findings = [finding for name in names for finding in _run(name, seconds)]
    for finding in findings:
        print(f"finding: {finding}")
        print(f"  again: .venv/bin/python -m tests.fuzz.child {finding.parent.name} {finding}")
    return 1 if findings else 0


def _run(name: str, seconds: int) -> list[Path]:
    """Fuzz one target; return the inputs that it failed on."""
    kept = _KEPT / name
    corpus = kept / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    before = set(kept.iterdir())
    command = [
        *(sys.executable, "-m", "tests.fuzz.child", name, str(corpus), f"-max_total_time={seconds}"),
        *(f"-artifact_prefix={kept}/", f"-timeout={_INPUT_SECONDS}", f"-rss_limit_mb={_MEMORY_MB}"),
        *(f"-max_len={_MAX_INPUT}", "-print_final_stats=1"),
    ]
    start = time.monotonic()
    child = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, errors="replace", check=False)
    took = time.monotonic() - start
    (kept / "log.txt").write_text(child.stdout + child.stderr)
    found = sorted(path for path in set(kept.iterdir()) - before if path.name.split("-")[0] in _ARTIFACTS)
    runs = max((int(done or line) for done, line in _RUNS.findall(child.stderr)), default=0)
    print(f"{name:24} {runs:9,} executions in {took:4.0f} s, {len(list(corpus.iterdir()))} kept, {len(found)} findings")
    sys.stdout.flush()
    if child.returncode and not found:
        # It did not even start, or died without saying on what.
        print(child.stderr[-3000:], file=sys.stderr)
        return [kept / "log.txt"]
    return found


_ARTIFACTS = {"crash", "timeout", "oom", "leak", "slow"}

if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    sys.exit(main())
