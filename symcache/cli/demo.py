"""`symcache demo`: the whole main job with nothing outside this machine.

Every step is the real command in a process of its own, shown as one would type it; only the macOS host is a stand-in.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.rule import Rule

from symcache.cli.common import console, errors_to_exit, out, plain, state
from symcache.errors import EnvironmentFailure
from symcache.own_program import own_environment, own_python
from symcache.text import counted

if TYPE_CHECKING:
    from symcache.demo.standin import StandInHost

__all__ = ["register"]

_SERVER_START_SECONDS = 60
_SERVER_STOP_SECONDS = 15
_DUMPS = ("crash-x86_64.zip", "crash-arm64.zip")


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(demo)


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Keep the library and leave the server running.")] = False,
) -> None:
    """Show the whole path: harvest a stand-in Mac over SSH, verify, serve, open crash dumps with every frame named."""
    from symcache.demo.standin import StandInHost

    with errors_to_exit():
        started = time.monotonic()
        with _workshop(keep) as shop, StandInHost(shop.assets / "host", layout="13") as host:
            _harvest(shop, host)
            build = shop.release()
            shop.step("Has all come that a Mac with Apple silicon has? Proven from its own lists")
            # A whole release has x86_64h too, which takes an Intel Mac: this one machine cannot have it.
            shop.run("verify", build, "--level", "bytes", "--arch", "x86_64", "--arch", "arm64e")
            shop.step("The crashed program's own binaries, with their debug info")
            shop.run("add", *[str(p) for p in sorted((shop.assets / "app").glob("*/*"))])
            shop.step("A server on a free port")
            url = shop.serve()
            shop.step("Crash dumps from the customer's Macs, opened through the server alone")
            for name in _DUMPS:
                shop.run("analyze", str(shop.assets / "dumps" / name), "--server", url)
            seconds = time.monotonic() - started
            console.print(Rule())
            console.print(f"[bold green]Every step worked[/], in {counted(round(seconds), 'second')}.")
            _next_steps(shop, url, build)


def _harvest(shop: _Workshop, host: StandInHost) -> None:
    source = f"ssh://{host.username}@{host.address}:{host.port}"
    login = ["--identity", str(host.identity_file), "--host-key", host.fingerprint]
    console.print(f"A stand-in for a Mac listens at [bold]{source}[/].")
    shop.step("Harvest it with dyld_shared_cache_util, in the guest")
    shop.run("harvest", source, "--extractor", "util", *login)
    shop.step("Harvest it again by copying its raw shared caches and extracting here")
    shop.run("harvest", source, "--extractor", "raw", *login)
    shop.run("releases")


def _next_steps(shop: _Workshop, url: str, build: str) -> None:
    """Say what to try, with what was kept if it was."""
    if shop.keep:
        shop.keep_server = True
        console.print(f"Library: [bold]{plain(str(shop.library))}[/]")
        console.print(f"Server:  [bold]{url}[/] (stop it: kill {shop.server_pid})")
        lines = [
            f"symcache open {shop.assets / 'dumps' / _DUMPS[0]} --server {url}",
            f"symcache lookup 'libsystem*' --library {shop.library}",
            f"symcache verify {build} --library {shop.library} --json",
        ]
    else:
        lines = [
            "symcache demo --keep                      keep the library and the server for looking around",
            "symcache harvest ssh://you@your-mac       a real Mac with Remote Login, or a VM",
            "symcache open CRASH.zip                   LLDB prompt on a dump",
        ]
    activate = Path(sys.prefix) / "bin/activate"
    if activate.is_file() and not shutil.which("symcache"):  # as after `make demo`
        lines.insert(0, f". {shlex.quote(str(activate))}")
    console.print("Try next:")
    for line in lines:
        console.print(f"  {plain(line)}", soft_wrap=True)
    if shop.keep:
        console.print(f"In a browser: [bold]{url}[/]", soft_wrap=True)


@dataclass
class _Workshop:
    """The demo's folder, and how a command runs in it."""

    folder: Path
    assets: Path
    keep: bool
    keep_server: bool = False
    server: subprocess.Popen[str] | None = None

    @property
    def library(self) -> Path:
        return self.folder / "library"

    @property
    def server_pid(self) -> int:
        return self.server.pid if self.server else 0

    @property
    def environment(self) -> dict[str, str]:
        """The user's environment, with everything symcache would keep moved into the demo's folder."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("SYMCACHE_")}
        homes = {f"XDG_{n}_HOME": str(self.folder / "home" / n.lower()) for n in ("DATA", "CONFIG", "CACHE", "STATE")}
        return own_environment(kept | homes) | {
            "SYMCACHE_LIBRARY": str(self.library),
            "SYMCACHE_CACHE_DIR": str(self.folder / "cache"),
            "no_proxy": "127.0.0.1",  # where its server is: a company's proxy would not find it
        }

    def step(self, title: str) -> None:
        console.print(Rule(title, align="left", style="cyan"))

    def command(self, *arguments: str) -> list[str]:
        shown = " ".join(shlex.quote(a) for a in arguments)
        console.print(f"[dim]$ symcache {plain(shown)}[/]", soft_wrap=True)
        return own_python("-m", "symcache", *(["--debug"] if state.debug else []), *arguments)

    def run(self, *arguments: str) -> None:
        """Run one command to its end; the demo ends where one fails."""
        out.file.flush()
        code = subprocess.run(self.command(*arguments), env=self.environment, check=False).returncode
        if code:
            raise EnvironmentFailure(
                f"`symcache {arguments[0]}` ended with {code}", hint="run `symcache --debug demo` to see where"
            )

    def release(self) -> str:
        """Return the one build that the library holds now."""
        listed = subprocess.run(
            own_python("-m", "symcache", "releases", "--json"),
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return str(json.loads(listed.stdout)[0]["build"])

    def serve(self) -> str:
        """Start the server as its own process and return its URL once it answers."""
        log = self.folder / "server.log"
        arguments = self.command("serve", "--port", "0", "--json")
        with log.open("w") as stderr:
            self.server = subprocess.Popen(
                arguments,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=True,
            )
        with _deadline(self.server, _SERVER_START_SECONDS):
            line = self.server.stdout.readline() if self.server.stdout else ""
        try:
            url = str(json.loads(line)["url"])
        except (ValueError, KeyError):
            raise EnvironmentFailure(
                f"the server did not start: {log.read_text()[-500:]}", hint="run `symcache serve` by hand"
            ) from None
        console.print(f"serving at [bold]{url}[/]")
        return url

    def close(self) -> None:
        if self.server and not self.keep_server:
            self.server.send_signal(signal.SIGTERM)
            try:
                self.server.wait(_SERVER_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.server.kill()
                self.server.wait()
        if self.server and self.server.stdout:
            self.server.stdout.close()


@contextlib.contextmanager
def _deadline(process: subprocess.Popen[str], seconds: float) -> Iterator[None]:
    """Kill `process` if the block takes longer, so that reading from it ends."""
    timer = threading.Timer(seconds, process.kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def _workshop(keep: bool) -> Iterator[_Workshop]:
    """Lay out the demo's folder with a copy of the assets; everything goes again, unless it is to be kept."""
    folder = Path(tempfile.mkdtemp(prefix="symcache-demo-"))
    shop = _Workshop(folder, folder / "assets", keep)
    finished = False
    try:
        with resources.as_file(resources.files("symcache.demo") / "assets") as assets:
            shutil.copytree(assets, shop.assets)
        yield shop
        finished = True
    finally:
        shop.close()
        if not (keep and finished):
            shutil.rmtree(folder, ignore_errors=True)
