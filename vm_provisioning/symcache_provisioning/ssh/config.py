"""What ssh_config(5) of the user and of the system says of a host; paramiko parses it.

The text that paramiko gets lacks what it would not understand: `Include` is resolved, comments behind values are gone,
`Match` by criteria that it does not know matches nothing (it would match all), and `ProxyCommand none`, which it
forgets, keeps a later `ProxyJump` from counting. What a URL or the inventory says stands before everything else, as
options of ssh do.
"""

from __future__ import annotations

import getpass
import os
import re
import shlex
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko

from symcache.errors import UsageError
from symcache.text import excerpt

__all__ = ["SshConfig", "SshHost"]

_SYSTEM = Path("/etc/ssh/ssh_config")
_LINE = re.compile(r"\s*(\w+)(?:\s*=\s*|\s+)(.+?)\s*")
_COMMENT = re.compile(r'\s#[^"]*$')
_COMMANDS = {"proxycommand", "localcommand", "remotecommand", "knownhostscommand"}
"""Take the whole line."""
_CRITERIA = {"all": 0, "canonical": 0, "final": 0, "host": 1, "originalhost": 1, "user": 1, "localuser": 1, "exec": 1}
"""Of `Match`: those that paramiko knows, and how many arguments they have."""
_NOTHING = "Host !*"
_TOKEN = re.compile(r"%(.)")
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_MAX_FILE, _MAX_FILES, _MAX_DEPTH = 1 << 20, 256, 16
"""Bytes, and files in all; OpenSSH includes no deeper either."""
_MAX_JUMPS = 8
_JUMP = re.compile(
    r"(?:(?P<user>[^@\s]+)@)?(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^-\s:@\[\]][^\s:@\[\]]*)(?::(?P<port>[0-9]{1,5}))?"
)


@dataclass(frozen=True, slots=True)
class SshHost:
    """An SSH server, and the way there."""

    name: str
    """As it was named."""
    address: str
    port: int
    user: str
    identities: tuple[Path, ...] = ()
    """Private keys; beside each, or in `certificates`, may be its certificate."""
    certificates: tuple[Path, ...] = ()
    identities_only: bool = False
    """Of the agent's keys, only those in `identities` are to be offered."""
    agent: str = "SSH_AUTH_SOCK"
    """The agent's socket; `SSH_AUTH_SOCK` for the one of the environment, `none` for no agent."""
    key_alias: str = ""
    """What the host key is known under, instead of address and port."""
    known_hosts: tuple[Path, ...] | None = None
    """Instead of the user's own."""
    jump: SshHost | None = None
    """The host to connect from."""
    command: str = ""
    """The program whose input and output are the connection."""

    @property
    def is_direct(self) -> bool:
        """Whether it is connected to without anything on the way."""
        return self.jump is None and not self.command

    @property
    def where(self) -> str:
        """Name and address, for messages."""
        if self.name == self.address:
            return f"{self.address} port {self.port}"
        return f"{self.name} ({self.address} port {self.port})"

    @property
    def known_as(self) -> str:
        """What known_hosts files call it."""
        return self.key_alias or (self.address if self.port == 22 else f"[{self.address}]:{self.port}")


class SshConfig:
    """The text of the files, in the order in which they count."""

    def __init__(self, *files: Path) -> None:
        """Raises UsageError for a file that cannot be read. What does not exist is empty."""
        self._files = [*map(str, files)]
        self._left = _MAX_FILES
        self._text = "\n".join(line for file in files for line in self._lines(file, file.parent, 0))

    @classmethod
    def for_user(cls) -> SshConfig:
        """Read the files of the user and of the system."""
        return cls(Path("~/.ssh/config").expanduser(), _SYSTEM)

    def host(self, name: str, *, user: str | None = None, port: int | None = None, default_user: str = "") -> SshHost:
        """Return what is known of a host; `user` and `port` count more than the files. Raises UsageError."""
        return self._host(name, user, port, default_user or getpass.getuser(), ())

    def _host(
        self,
        name: str,
        user: str | None,
        port: int | None,
        default_user: str,
        before: tuple[str, ...],
        jump: SshHost | None = None,
    ) -> SshHost:
        """As `host`; `before` are the hosts that are reached from here, `jump` the one that was named to come from."""
        if len(before) > _MAX_JUMPS or name in before:
            way = " from ".join((*before, name))
            raise UsageError(
                f"{self._names}: jumps lead in a circle: {way}", hint=f"write `ProxyJump none` for {name} there"
            )
        said = self._lookup(name, user, port)
        user = user or said.get("user") or default_user
        try:
            port = port or int(said.get("port", 22))
            if not 0 < port < 65536:
                raise ValueError
        except ValueError as error:
            raise self._wrong(name, "Port", said["port"]) from error
        address = said.get("hostname") or name
        tokens = {"h": address, "p": str(port), "r": user, "n": name}

        def paths(key: str) -> tuple[Path, ...]:
            values = said.get(key, [])
            words = values if isinstance(values, list) else shlex.split(values)
            return tuple(Path(_expand(v.strip('"'), tokens)).expanduser() for v in words if v.lower() != "none")

        agent = _expand(said.get("identityagent", "SSH_AUTH_SOCK"), tokens)
        if agent.startswith("$"):
            agent = os.environ.get(agent[1:], "none")
        command, jumps = said.get("proxycommand") or "", said.get("proxyjump") or ""
        if jump is not None:
            command = ""
        elif jumps and (not command or list(said).index("proxyjump") < list(said).index("proxycommand")):
            command = ""
            for text in [] if jumps.lower() == "none" else jumps.split(","):
                jump = self._jump(name, text.strip(), (*before, name), jump)
        return SshHost(
            name,
            address,
            port,
            user,
            paths("identityfile"),
            paths("certificatefile"),
            said.get("identitiesonly", "no").lower() == "yes",
            str(Path(agent).expanduser()),
            said.get("hostkeyalias", ""),
            paths("userknownhostsfile") if "userknownhostsfile" in said else None,
            jump,
            command,
        )

    def _jump(self, name: str, text: str, before: tuple[str, ...], jump: SshHost | None) -> SshHost:
        """Return one of the hosts of `ProxyJump`, which is reached from `jump`, or else as the files say."""
        match = _JUMP.fullmatch(text.removeprefix("ssh://").rstrip("/"))
        if match is None:
            raise self._wrong(name, "ProxyJump", text)
        port = int(match["port"]) if match["port"] else None
        return self._host(match["host"].strip("[]"), match["user"], port, getpass.getuser(), before, jump)

    def _lookup(self, name: str, user: str | None, port: int | None) -> Mapping[str, Any]:
        # What comes first counts, in `Match user`, %r and %p, too.
        first = [f"User {user}"] if user else []
        first += [f"Port {port}"] if port else []
        try:
            said: Mapping[str, Any] = paramiko.SSHConfig.from_text("\n".join([*first, self._text])).lookup(name)
        except (
            paramiko.ConfigParseError,
            paramiko.CouldNotCanonicalize,
            ImportError,
            ValueError,
            LookupError,
            OSError,
        ) as error:
            raise UsageError(
                f"{self._names}: cannot be understood: {excerpt(str(error))}",
                hint=f"see what `ssh -G {name}` says; docs/machines.md lists what is heeded",
            ) from error
        return said

    @property
    def _names(self) -> str:
        return " and ".join(self._files)

    def _wrong(self, name: str, key: str, value: str) -> UsageError:
        return UsageError(
            f"{self._names}: {key} of {name}: {excerpt(value)} makes no sense", hint=f"see what `ssh -G {name}` says"
        )

    def _lines(self, file: Path, folder: Path, depth: int, outer: str = "") -> Iterator[str]:
        """Yield the lines of a file and of those that it includes. Relative names are in `folder`.

        They count where the criteria `outer` do, within which the file was included.
        """
        try:
            with file.open("rb") as opened:
                status = os.fstat(opened.fileno())
                data = opened.read(_MAX_FILE + 1)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise UsageError(f"{file}: cannot be read: {error.strerror}", hint="check who may read it") from error
        if folder != _SYSTEM.parent and (status.st_uid not in {0, os.getuid()} or status.st_mode & 0o022):
            raise UsageError(
                f"{file}: others may write it, and it names programs to run", hint=f"chmod go-w {file}, as for ssh"
            )
        self._left -= 1
        if len(data) > _MAX_FILE or depth > _MAX_DEPTH or self._left < 0:
            raise UsageError(f"{file}: more than ssh would read", hint="is there a circle of `Include`?")
        criteria = outer
        yield _block(criteria)
        for text in data.decode("utf-8", "replace").splitlines():
            match = _LINE.fullmatch(text)
            key, value = (match[1].lower(), match[2]) if match else ("", "")
            line = text
            if key and key not in _COMMANDS:
                value = _COMMENT.sub("", value)
                line = f"{key} {value}"
            if key in {"host", "match"}:
                own = _of_host(file, value) if key == "host" else _of_match(file, value)
                criteria = _NOTHING if _NOTHING in {outer, own} else f"{outer} {own}".strip()
                line = _block(criteria)
            if key == "include":
                for included in self._included(file, value, folder):
                    yield from self._lines(included, folder, depth + 1, criteria)
                yield _block(criteria)  # what follows is still said of these hosts
            elif key == "proxycommand" and value.lower() == "none":
                yield "ProxyJump none"  # they stand for each other
            else:
                yield line

    @staticmethod
    def _included(file: Path, value: str, folder: Path) -> list[Path]:
        found = [(folder / Path(text).expanduser()).relative_to("/") for text in _words(file, value)]
        return [path for pattern in found for path in sorted(Path("/").glob(str(pattern)))]


def _words(file: Path, value: str) -> list[str]:
    try:
        return shlex.split(value)
    except ValueError as error:
        raise UsageError(f"{file}: {excerpt(value)}: {error}", hint="close the quotes") from error


def _block(criteria: str) -> str:
    """Return the line that begins a block of what counts where all criteria do; everywhere, if there are none."""
    if criteria == _NOTHING:
        return _NOTHING
    return f"Match {criteria}" if criteria else "Host *"


def _of_host(file: Path, value: str) -> str:
    """Return a line `Host` as criteria of `Match`, which unlike those lines can be joined to others."""
    return f"originalhost {shlex.quote(','.join(_words(file, value)))}"


def _of_match(file: Path, value: str) -> str:
    """Return the criteria of a line `Match` as paramiko takes them, or that it matches nothing."""
    words, criteria = _words(file, value), []
    while words:
        name = words.pop(0).lower()
        count = _CRITERIA.get(name.removeprefix("!"))
        if count is None or len(words) < count or name == "!all":
            return _NOTHING
        if name != "all":  # which must stand alone
            criteria += [name, *(shlex.quote(words.pop(0)) for _ in range(count))]
    return " ".join(criteria)


def _expand(text: str, tokens: Mapping[str, str]) -> str:
    """Replace tokens and `${VARIABLES}` of ssh_config(5) in a value that paramiko leaves as it is."""
    known = {"%": "%", "d": str(Path.home()), "u": getpass.getuser(), "L": socket.gethostname().partition(".")[0]}
    replaced = _TOKEN.sub(lambda m: {**known, **tokens}.get(m[1], m[0]), text)
    return _VARIABLE.sub(lambda m: os.environ.get(m[1], m[0]), replaced)
