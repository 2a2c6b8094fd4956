"""Tables of many small images, made in few processes."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from symcache.errors import IntegrityError
from symcache.macho import identify
from symcache.symbolicate import NamesFolder, folder
from tests.dump.systems import ASSETS
from tests.symbolicate.comparing import content


def test_what_is_built_together_is_what_is_built_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [p for p in sorted((ASSETS / "app" / "arm64").rglob("*")) if p.name in {"Ledger", "LedgerKit"}]
    files = {identify(path)[0].uuid: content(path) for path in images if path.is_file()}
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"\xcf\xfa\xed\xfe" + b"\xff" * 4096)
    wanted = [(uuid, one) for uuid, one in files.items() if uuid] + [(UUID(int=1), content(damaged))]
    names = NamesFolder(tmp_path / "names", 1 << 30)
    names.build_small([*wanted, *wanted])
    assert [names.is_built(uuid, [one]) for uuid, one in wanted] == [True] * (len(wanted) - 1) + [False]

    alone = NamesFolder(tmp_path / "alone", 1 << 30)
    offsets = np.arange(0, 0x8000, 64)
    (uuid, one), *_, unreadable = wanted
    assert names.open(uuid, [one]).look_up(offsets) == alone.open(uuid, [one]).look_up(offsets)
    with pytest.raises(IntegrityError, match="reading its symbols"):
        names.open(unreadable[0], [unreadable[1]])

    def never(*_: object) -> None:
        raise AssertionError("everything has been built")

    monkeypatch.setattr(folder, "ConfinedProcess", never)
    names.build_small(wanted)
