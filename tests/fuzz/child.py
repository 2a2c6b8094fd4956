"""`python -m tests.fuzz.child NAME CORPUS_OR_INPUT [libFuzzer options]`: one target under atheris, in this process."""

from __future__ import annotations

import hashlib
import importlib
import sys
from pathlib import Path

import atheris


def main() -> None:
    """Instrument the project, load the target, and hand over to libFuzzer."""
    name, place, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["symcache", "symcache_server", "symcache_provisioning"]):
        target = importlib.import_module(f"tests.fuzz.{name}")
    corpus = Path(place)
    if corpus.is_dir():
        for seed in target.SEEDS():
            (corpus / hashlib.sha1(seed, usedforsecurity=False).hexdigest()).write_bytes(seed)
    atheris.Setup([sys.argv[0], *options, place], target.one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
