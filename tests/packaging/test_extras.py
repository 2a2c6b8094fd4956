"""What is optional says how to get it: the line that installs what pyproject.toml names, for the Python that runs."""

from __future__ import annotations

import shlex
import sys
import tomllib
from pathlib import Path

import pytest

from symcache.dump.lldb_child import finder
from tests.support.commands import end_here

_PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


def test_without_obstore_a_library_in_a_bucket_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)  # an import of it fails, as where it is not installed
    for module in ("symcache.store.s3", "symcache.store.bucket"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setenv("COLUMNS", "500")
    ran = end_here("releases", "--library", "s3://bucket/library", code=3)
    (required,) = _PROJECT["optional-dependencies"]["s3"]
    line = shlex.join([sys.executable, "-m", "pip", "install", required])
    assert line in " ".join(ran.stderr.split())


def test_without_an_lldb_the_wheel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    (required,) = _PROJECT["optional-dependencies"]["lldb"]
    for system in ("linux", "darwin"):
        monkeypatch.setattr(sys, "platform", system)
        named = f"{shlex.quote(sys.executable)} -m pip install {required.partition('>')[0]}"
        assert named in finder.next_step()
