"""Collections of kernel extensions, as a user asks for what is in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from symcache.cli.app import application
from symcache.model import uuid_text
from tests.support.kernel_collection import COLLECTION, ENTRIES, kernel_collection


def run(*arguments: object, code: int = 0) -> Result:
    ran = CliRunner().invoke(application(str(arguments[0])), [str(a) for a in arguments])
    assert ran.exit_code == code, ran.output
    return ran


def answer(*arguments: object, code: int = 0) -> Any:
    return json.loads(run(*arguments, "--json", code=code).stdout)


def test_images_inside_a_kernel_collection_are_listed_and_found_by_uuid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYMCACHE_LIBRARY", str(tmp_path / "library"))
    file = tmp_path / "BootKernelExtensions.kc"
    file.write_bytes(kernel_collection())
    (part,) = answer("info", file)["slices"]
    assert {e["name"]: e["uuid"] for e in part["entries"]} == {n: uuid_text(u) for n, u in ENTRIES.items()}
    shown = run("info", file).stdout
    assert all(name in shown and uuid_text(uuid) in shown for name, uuid in ENTRIES.items())
    run("add", file)
    assert [r["uuid"] for r in answer("lookup", uuid_text(COLLECTION))] == [uuid_text(COLLECTION)]
    for name, uuid in ENTRIES.items():
        ran = run("lookup", uuid_text(uuid), code=1)
        assert f"is {name} inside the kernel collection BootKernelExtensions.kc" in ran.stderr
        assert uuid_text(COLLECTION) in ran.stderr
