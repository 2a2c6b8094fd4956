"""Writes what a version writes: `python -m tests.contracts.write PYTHON FOLDER`.

PYTHON has that version installed, and FOLDER (`tests/contracts/v0.1.0`) gets

::

    library.tar.xz, home.tar.xz    as `story.make` left them
    json/NAME.json                 what was answered, in `story.ask` and `story.act`

which `test_contracts.py` holds the present version against. Everything is done in one folder with a plain name, by a
user with another, so that nothing of the machine is in it; it runs where there is no such folder and nobody listens at
port 8080.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from tests.contracts.archive import pack
from tests.contracts.session import Session
from tests.contracts.story import act, ask, make

_ROOT = Path("/tmp/symcache-contracts")


def _main(python: str, target: Path) -> None:
    _ROOT.mkdir()
    try:
        with Session(_ROOT, python) as user:
            make(user)
            target.mkdir(parents=True, exist_ok=True)
            for name in ("library", "home"):
                pack(target / f"{name}.tar.xz", _ROOT / name)
            user.documents.clear()
            with user.serving():
                ask(user)
                act(user)
            shutil.rmtree(target / "json", ignore_errors=True)
            (target / "json").mkdir()
            for name, document in user.documents.items():
                text = json.dumps(document, indent=1, ensure_ascii=False)
                (target / "json" / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    finally:
        shutil.rmtree(_ROOT)


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]))
