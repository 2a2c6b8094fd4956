"""Rebuild the demo's assets and the ground truth of its dumps: `python -m tests.corpus`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.corpus.assets import ASSETS, TRUTH, write_all

if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="symcache-corpus-") as scratch:
        write_all(Path(scratch), ASSETS, TRUTH)
    files = [p for p in ASSETS.rglob("*") if p.is_file()]
    print(f"{len(files)} files, {sum(p.stat().st_size for p in files) >> 10} KiB in {ASSETS}")
