"""What earlier versions wrote is read, verified and added to, and every key of the JSON that they gave is still given.

`write.py` says how the folders beside this were made. A key that goes is there for one version more: the folder of the
version that still has it stays until then.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.contracts.archive import unpack
from tests.contracts.session import Session
from tests.contracts.story import act, act_server, ask
from tests.reference.json_output import undescribed_keys

VERSIONS = sorted(Path(__file__).parent.glob("v*"))
PROSE = {"description", "detail", "error", "exception", "hint", "mend", "message", "next", "notes", "problems", "text"}
"""Keys of sentences for people: they may be put in other words."""
NO_DEBUGGER: dict[str, Any] = {"column": None, "debugger": ""}
"""What is told no more of crash reports, for which none is started any more; readers had to reckon with it before."""


@dataclass
class Upgraded:
    """A user whose library and home an earlier version wrote, and what commands answer now."""

    user: Session
    then: dict[str, Any]
    """What they answered that version."""
    writers: set[str]
    """Of records, before anything was added."""

    @property
    def now(self) -> dict[str, Any]:
        return self.user.documents


@pytest.fixture(scope="module", params=VERSIONS, ids=lambda folder: folder.name)
def upgraded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgraded]:
    root = tmp_path_factory.mktemp("contracts")
    for name in ("library", "home"):
        unpack(request.param / f"{name}.tar.xz", root)
    then = {path.stem: json.loads(path.read_text("utf-8")) for path in (request.param / "json").glob("*.json")}
    writers = {folder.name for folder in (root / "library/records").iterdir()}
    with Session(root, sys.executable) as user:
        shutil.copytree(user.root / "library", user.root / "copy")
        with user.serving():
            ask(user)
            act(user)
        yield Upgraded(user, then, writers)


def differences(then: Any, now: Any, path: str = "", *, values: bool = True) -> list[str]:
    """Say which keys are gone, and what has another type, or with `values` is something else; sentences aside."""
    if isinstance(then, dict) and isinstance(now, dict):
        found = [f"{path}.{key}: is gone" for key in then if key not in now]
        for key in then.keys() & now.keys():
            if key in NO_DEBUGGER and now[key] == NO_DEBUGGER[key]:
                continue
            found += differences(then[key], now[key], f"{path}.{key}", values=values and key not in PROSE)
        return sorted(found)
    if isinstance(then, list) and isinstance(now, list):
        if len(then) != len(now) if values else then and not now:
            return [f"{path}: {len(then)} became {len(now)}"]
        pairs = enumerate(zip(then, now, strict=False))
        return [text for n, pair in pairs for text in differences(*pair, f"{path}[{n}]", values=values)]
    if then == now if values else type(then) is type(now) or then is None:
        return []
    return [f"{path}: {then!r} became {now!r}"]


def test_the_reference_tells_of_every_key(upgraded: Upgraded) -> None:
    told = [(d["command"].split()[1:], d["output"]) for d in upgraded.now.values() if "command" in d]
    assert [wrong for words, output in told for wrong in undescribed_keys(words, output)] == []


def test_whatever_was_answered_then_is_answered_now(upgraded: Upgraded) -> None:
    """Commands and server say the same of that library and have every key, whatever else they say."""
    wrong = [name for name in upgraded.then if name not in upgraded.now]
    for name, then in upgraded.then.items():
        now = upgraded.now.get(name, then)
        wrong += differences({"exit": then.get("exit")}, {"exit": now.get("exit")}, name)
        wrong += differences(then, now, name, values=then["fixed"])
    assert not wrong, "\n".join(wrong)


def is_well(user: Session) -> None:
    """Whatever was added, all of the library can be read and is what it was."""
    library = (*user.library, "--json")
    assert json.loads(user.run("fsck", "--read-data", *library))["findings"] == []
    for build in ("22G830", "22G74"):
        user.run("verify", build, "--level", "bytes", "--arch", "arm64e", "--arch", "x86_64", *user.library)
    assert [r["build"] for r in json.loads(user.run("releases", *library))] == ["22G830", "22G90", "22G74", "21G115"]


def test_the_library_goes_on(upgraded: Upgraded) -> None:
    """New harvests, own binaries and decisions join what was there."""
    now = {name: document["output"] for name, document in upgraded.now.items()}
    partial, continued, (whole,) = now["harvest-partial"], now["harvest-continued"], now["harvest-all"]
    assert (partial["sealed"], continued["sealed"], whole["result"]["sealed"]) == (False, True, True)
    assert (continued["stored"], whole["result"]["stored"]) == (0, 0), "the same bytes have the same names"
    assert now["fsck-repair"]["clean"]
    assert (upgraded.user.root / "library/symcache-library-id.json").is_file(), "its first writer gives it an id"
    assert {f.name for f in (upgraded.user.root / "library/records").iterdir()} == upgraded.writers
    is_well(upgraded.user)


@pytest.mark.parametrize("snapshot", [True, False])
def test_the_records_alone_say_the_same(upgraded: Upgraded, tmp_path: Path, snapshot: bool) -> None:
    """Whether a new machine starts from the snapshot that lies there, or folds every record."""
    library = shutil.copytree(upgraded.user.root / "copy", tmp_path / "library")
    (library / "catalog.db").unlink()
    if not snapshot:
        shutil.rmtree(library / "snapshots")
    for name in ("releases", "stats", "lookup-rivals", "diff", "verify-all"):
        document = upgraded.then[name]
        words = document["command"].split()[1:]
        words = [
            w.replace("/contracts/library", str(library)).replace("/contracts", str(upgraded.user.root)) for w in words
        ]
        assert differences(document["output"], json.loads(upgraded.user.run(*words, code=document["exit"]))) == [], name


def test_what_was_set_up_is_taken_back(upgraded: Upgraded) -> None:
    """The marks around our block in LLDB's init file are known for ever."""
    user = upgraded.user
    assert "symbols.example" in (user.home / ".lldbinit").read_text()
    user.run("setup", "lldb", "--undo")
    assert (user.home / ".lldbinit").read_bytes() == (user.inputs / "lldbinit").read_bytes()


def test_versions_work_side_by_side(upgraded: Upgraded) -> None:
    """An older version reads what this one wrote and adds to it, and each talks to the other's server."""
    older = os.environ.get("SYMCACHE_TEST_OLDER")
    if not older:
        pytest.skip("SYMCACHE_TEST_OLDER is not set: the Python that has an older version")
    root, wrong = upgraded.user.root, []
    with Session(root, older) as old, Session(root, sys.executable) as new, old.serving(), new.serving():
        old.first_line, new.first_line = new.first_line, old.first_line
        ask(old)
        ask(new)
        for name in old.documents:
            then, now = old.documents[name], new.documents[name]
            if name.startswith("http-"):
                then, now = now, then
            # Asking for what nobody has is counted.
            wrong += differences(then, now, name, values=then["fixed"] and not name.endswith("missing"))
        act(old)
        new.fixed = False
        act_server(new)
        for name, document in (old.documents | new.documents).items():
            if not name.startswith(("vm-", "remove")):  # there is nothing left of these
                wrong += differences(upgraded.then[name].get("exit"), document.get("exit"), name)
        assert not wrong, "\n".join(wrong)
        is_well(new)


def test_the_comparison_sees_what_is_wrong() -> None:
    then = [{"uuid": None, "size": 1, "hint": "try"}, {"uuid": "A", "size": 2, "hint": ""}]
    for number, key, value, found, found_without_values in (
        (0, "new", 1, 0, 0),
        (0, "hint", "do", 0, 0),
        (0, "hint", ["do"], 1, 1),
        (0, "size", 3, 1, 0),
        (0, "size", "1", 1, 1),
        (0, "uuid", "B", 1, 0),  # what else it could be was not known then
        (1, "uuid", None, 1, 1),
    ):
        now = [dict(one) for one in then]
        now[number][key] = value
        assert len(differences(then, now)) == found, (key, value)
        assert len(differences(then, now, values=False)) == found_without_values, (key, value)
    del now[1]["size"]
    assert "[1].size: is gone" in differences(then, now, values=False)
    assert len(differences(then, now[:1])) == 1
    assert len(differences(then, [], values=False)) == 1
