"""One user of symcache, some version of it, with a library, a home and machines to harvest, all below one folder.

What commands and servers answer is kept as documents, in which whatever depends on the machine, the folder and the time
is replaced.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import plistlib
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from symcache.demo.standin import StandInHost
from tests.contracts.archive import INPUTS, unpack
from tests.support.http import request
from tests.vm_provisioning.stand_ins import StandIns

__all__ = ["Session"]

_HOMES = ("data", "config", "cache", "state")
_NEUTRAL = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)"), "2026-01-01T00:00:00+00:00"),
    (re.compile(r"SHA256:[A-Za-z0-9+/]{43}"), "SHA256:" + "0" * 43),
    (re.compile(r"//builder:[\w-]+@"), "//builder:TOKEN@"),
    (re.compile(r"\d+ MiB are free"), "100000 MiB are free"),
    (re.compile(r"port \d+ answers"), "port 22 answers"),
)
_NUMBERS: Mapping[str, object] = {"port": 22, "seconds": 1.5}
"""What documents have instead of numbers that are others each time, by key."""
_HEADERS = re.compile(r"x-symcache-(?!version).*|x-debuginfod-.*|etag|content-(type|length|range|encoding)")


class Session:
    """A context manager: inside of it, commands can be run. `python` is the Python whose symcache is meant."""

    def __init__(self, root: Path, python: str) -> None:
        self.root, self.python = root.resolve(), python
        self.inputs, self.home = self.root / "inputs", self.root / "home"
        self.library = ("--library", str(self.root / "library"))
        self.documents: dict[str, dict[str, Any]] = {}
        self.fixed = True
        """What is kept now depends on the library and the home alone: its values are part of the contract, too."""
        self._server: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opened:
            for folder in ("tmp", *(f"home/{name}" for name in _HOMES)):
                (self.root / folder).mkdir(parents=True, exist_ok=True)
            unpack(INPUTS, self.root)
            settings = self.home / "config/symcache/symcache.toml"
            settings.parent.mkdir(exist_ok=True)
            settings.write_text('servers = ["http://127.0.0.1:1"]\n')  # nobody listens there
            self.guests = StandIns(Path(opened.enter_context(tempfile.TemporaryDirectory(dir=self.root))))
            self.host = StandInHost(self.inputs / "host")
            self.host.username = "builder"
            opened.enter_context(self.host)
            self._describe_machines()
            stderr = opened.enter_context((self.root / "stderr").open("a"))
            driver = Path(__file__).with_name("driver.py")
            self._commands = subprocess.Popen(
                [self.python, "-P", str(driver)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                cwd=self.root,
                env=self.environment,
            )
            opened.enter_context(self._commands)
            self._resources = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    @property
    def environment(self) -> dict[str, str]:
        """Nothing of whoever runs this."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SYMCACHE_", "XDG_", "DEBUGINFOD_"))}
        return kept | {
            **{f"XDG_{name.upper()}_HOME": str(self.home / name) for name in _HOMES},
            "HOME": str(self.home),
            "LOGNAME": "builder",
            "TMPDIR": str(self.root / "tmp"),
            "PATH": f"{self.guests.bin}{os.pathsep}{os.environ['PATH']}",
            "COLUMNS": "1000",
            "SYMCACHE_CACHE_DIR": str(self.home / "binaries"),
            "SYMCACHE_MACHINES": str(self.root / "machines.toml"),
            "SYMCACHE_SOURCE_ROOTS": "/srv/sources",
        }

    def _describe_machines(self) -> None:
        login = (
            f'user = "builder"\nport = {self.host.port}\nidentity = "{self.host.identity_file}"\n'
            f'host_key = "{self.host.fingerprint}"\n'
        )
        static = f'driver = "static"\nhost = "127.0.0.1"\n{login}'
        texts = [
            f'[machines.{name}]\n{static}tags = ["old"]\nroot = "/Volumes/{name.capitalize()}"\n'
            for name in ("early", "halfway", "rapid", "withdrawn")
        ]
        texts.append(f'[machines.ventura]\n{static}tags = ["lab"]\nversion = "13.6.9"\nbuild = "22G830"\n')
        texts.append(
            f'[machines.clone]\ndriver = "tart"\nimage = "golden"\n{login}options = {{ network = "softnet" }}\n'
        )
        (self.root / "machines.toml").write_text("\n".join(texts))
        known = self.home / "guests.json"
        machines = json.loads(known.read_text()) if known.exists() else {"golden": {"ip": "127.0.0.1"}}
        for name, values in machines.items():
            self.guests.add(name, **values)

    def run(self, *arguments: str | Path, code: int = 0) -> str:
        """Run a command that has to end with `code`; return what it prints."""
        ended, printed, said = self._run(arguments)
        assert ended == code, f"{' '.join(map(str, arguments))}: {ended}: {said}"
        return printed

    def tell(self, name: str, *arguments: str | Path, plist: bool = False) -> None:
        """Keep under a name what a command prints: with `--json`, or by itself as a property list."""
        words = [*arguments, *([] if plist else ["--json"])]
        ended, printed, said = self._run(words)
        output = plistlib.loads(printed.encode()) if plist and ended == 0 else _parsed(printed or said)
        self.keep(name, {"command": " ".join(["symcache", *map(str, words)]), "exit": ended, "output": output})

    def _run(self, arguments: Sequence[str | Path]) -> tuple[object, str, str]:
        """Return exit code, standard output and standard error."""
        assert self._commands.stdin is not None
        assert self._commands.stdout is not None
        self._commands.stdin.write(json.dumps([str(a) for a in arguments]) + "\n")
        self._commands.stdin.flush()
        code, printed, said = json.loads(self._commands.stdout.readline())
        return code, printed, said

    @contextlib.contextmanager
    def serving(self, *options: str, port: int = 0) -> Iterator[None]:
        """Have a server, which starts meanwhile."""
        command = [self.python, "-P", "-m", "symcache", "serve", "--port", str(port), "--json", *self.library, *options]
        with (self.root / "stderr").open("a") as stderr:
            server = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=self.root, env=self.environment
            )
        with server:
            self._server = server
            try:
                yield
            finally:
                server.terminate()
                vars(self).pop("first_line", None)

    @cached_property
    def first_line(self) -> dict[str, str]:
        """What the server said when it was ready; commands can be run while it starts. Another's may be put here."""
        assert self._server is not None
        assert self._server.stdout is not None
        told: dict[str, str] = json.loads(self._server.stdout.readline())
        return told

    @property
    def url(self) -> str:
        """Of the server."""
        return self.first_line["url"]

    @property
    def own_server(self) -> tuple[str, str]:
        """The option that names the server, with a token that may write."""
        return "--server", self.url.replace("//", f"//builder:{self._token('ci')}@")

    def _token(self, name: str) -> str:
        return (self.home / f"token-{name}").read_text()

    def send(
        self, name: str, path: str, method: str = "GET", body: object = None, *, token: str = "", binary: bool = False
    ) -> None:
        """Keep what the server answers under a name; of a binary its hash. `body` is JSON, or bytes."""
        headers = {"Authorization": f"Bearer {self._token(token)}"} if token else {}
        if body is not None:
            headers["Content-Type"] = "application/octet-stream" if isinstance(body, bytes) else "application/json"
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = request(self.url, path, method=method, headers=headers, body=body)
        told = {"request": f"{method} {path}", "status": answer.status}
        if binary:
            told["headers"] = {k: v for k, v in sorted(answer.headers.items()) if _HEADERS.fullmatch(k)}
            self.keep(name, told | {"output": {"sha256": hashlib.sha256(answer.body).hexdigest()}})
        else:
            self.keep(name, told | {"output": _parsed(answer.body.decode())})

    def keep(self, name: str, document: Mapping[str, object]) -> None:
        """Keep a document under a name."""
        text = json.dumps({"fixed": self.fixed, **document}, ensure_ascii=False)
        text = text.replace(str(self.root), "/contracts")
        if "first_line" in vars(self):
            text = text.replace(self.url.removeprefix("http://"), "127.0.0.1:8080")
        for pattern, neutral in _NEUTRAL:
            text = pattern.sub(neutral, text)
        assert name not in self.documents
        self.documents[name] = json.loads(
            text, object_hook=lambda found: {k: _NUMBERS.get(k, v) for k, v in found.items()}
        )


def _parsed(text: str) -> object:
    """Return JSON as it is meant, anything else as it is."""
    try:
        return json.loads(text)
    except ValueError:
        return text
