"""`symcache harvest --all`: a whole inventory, with one report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from symcache.cli import harvest_all
from symcache_provisioning import Inventory
from tests.support.openssh import OpenSshServer
from tests.support.systems import BUILD, make_endless_util
from tests.support.waiting import until


@pytest.fixture(autouse=True)
def own_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYMCACHE_LIBRARY", str(tmp_path / "library"))
    monkeypatch.setenv("SYMCACHE_MACHINES", str(tmp_path / "machines.toml"))
    monkeypatch.setenv("COLUMNS", "1000")


def symcache(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "symcache", "harvest", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)


def inventory(folder: Path, server: OpenSshServer, machines: dict[str, dict[str, Any]]) -> None:
    """Describe static hosts that all are this server."""
    lines = []
    for name, more in machines.items():
        values = {"driver": "static", "host": server.address, "port": server.port, "user": server.user}
        values |= {"identity": str(server.identity), "host_key": server.fingerprint, **more}
        lines += [f"[machines.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items()), ""]
    (folder / "machines.toml").write_text("\n".join(lines))


def test_every_machine_is_harvested_and_reported(openssh: OpenSshServer, system: Path, tmp_path: Path) -> None:
    inventory(
        tmp_path,
        openssh,
        {
            "good": {"root": str(system), "tags": ["ci"]},
            "empty": {"root": str(tmp_path), "tags": ["ci"]},
            "other": {"root": str(system)},
        },
    )
    junit = tmp_path / "junit.xml"
    ran = symcache("--all", "--tag", "ci", "--extractor", "raw", "--json", "--junit", str(junit))
    assert ran.returncode == 3, ran.stderr
    good, empty = json.loads(ran.stdout)
    assert (good["machine"], good["outcome"], good["exit_code"]) == ("good", "sealed", 0)
    assert good["result"]["release"]["build"] == BUILD
    assert (empty["machine"], empty["outcome"], empty["result"]) == ("empty", "failed", None)
    assert "is not the root of a macOS system" in empty["error"]
    assert empty["hint"]
    assert "good: copying dyld_shared_cache_arm64e" in ran.stderr
    assert "Traceback" not in ran.stderr
    suite = ET.parse(junit).getroot().find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("errors"), suite.get("failures")) == ("2", "1", "0")
    cases = {case.get("name"): [child.tag for child in case] for case in suite}
    assert cases == {"good": [], "empty": ["error"]}


def test_what_a_person_sees(openssh: OpenSshServer, system: Path, tmp_path: Path) -> None:
    inventory(tmp_path, openssh, {"one": {"root": str(system)}, "two": {"root": str(system)}})
    ran = symcache("--all", "--extractor", "raw", "--jobs", "1")
    assert ran.returncode == 0, ran.stderr
    lines = [line.split() for line in ran.stdout.splitlines()]
    assert [line[:4] for line in lines[1:]] == [[n, "sealed", "28.0", BUILD] for n in ("one", "two")]
    assert lines[2][5] == "0"  # what the first has stored is not stored again


def test_an_interrupt_reaches_every_harvest(openssh: OpenSshServer, system: Path, tmp_path: Path) -> None:
    slow, mark = make_endless_util(tmp_path)
    inventory(tmp_path, openssh, {"one": {"root": str(system)}})
    command = [sys.executable, "-m", "symcache", "harvest", "--all", "--util-path", str(slow)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ) as running:
        until(mark.exists)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=240)  # by itself, none would end for longer
    assert running.returncode == 130, said
    assert not Path(mark.read_text().strip()).exists()
    assert "Traceback" not in said


def test_a_harvest_that_is_just_being_started_is_interrupted_too(
    openssh: OpenSshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inventory(tmp_path, openssh, {"one": {"root": "/"}})
    begun, start = threading.Event(), subprocess.Popen

    def slow(command: list[str], **options: Any) -> subprocess.Popen[str]:
        begun.set()
        time.sleep(0.5)  # as on a busy machine; meanwhile the interrupt comes
        return start([sys.executable, "-c", "import time; time.sleep(600)"], **options)

    monkeypatch.setattr(subprocess, "Popen", slow)
    (machine,) = Inventory.load().machines.values()
    with harvest_all._Display([machine]) as display:
        harvests = harvest_all._Harvests([], dict(os.environ), display)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(harvests.harvest, machine)
            assert begun.wait(60)
            harvests.stop()
            assert running.result(60).code != 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "name one source, or --all"),
        (["--all", "ssh://a@b"], "name one source, or --all"),
        (["--all", "--identity", "x"], "of single machines"),
        (["ssh://a@b", "--tag", "x"], "go with --all"),
    ],
)
def test_wrong_use(arguments: list[str], text: str) -> None:
    ran = symcache(*arguments)
    assert ran.returncode == 2
    assert text in ran.stderr


def test_no_machine(openssh: OpenSshServer, system: Path, tmp_path: Path) -> None:
    inventory(tmp_path, openssh, {"one": {"root": str(system)}})
    ran = symcache("--all", "--tag", "nobody")
    assert ran.returncode == 1
    assert "has no machine with the tags nobody" in ran.stderr
