"""Collections of kernel extensions, as a user asks for what is in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from symcache.model import uuid_text
from tests.support.commands import answer_here, end_here
from tests.support.kernel_collection import COLLECTION, ENTRIES, kernel_collection


def test_images_inside_a_kernel_collection_are_listed_and_found_by_uuid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYMCACHE_LIBRARY", str(tmp_path / "library"))
    file = tmp_path / "BootKernelExtensions.kc"
    file.write_bytes(kernel_collection())
    (part,) = answer_here("info", file)["slices"]
    assert {e["name"]: e["uuid"] for e in part["entries"]} == {n: uuid_text(u) for n, u in ENTRIES.items()}
    shown = end_here("info", file).stdout
    assert all(name in shown and uuid_text(uuid) in shown for name, uuid in ENTRIES.items())
    end_here("add", file)
    assert [r["uuid"] for r in answer_here("lookup", uuid_text(COLLECTION))] == [uuid_text(COLLECTION)]
    for name, uuid in ENTRIES.items():
        ran = end_here("lookup", uuid_text(uuid), code=1)
        assert f"is {name} inside the kernel collection BootKernelExtensions.kc" in ran.stderr
        assert uuid_text(COLLECTION) in ran.stderr
