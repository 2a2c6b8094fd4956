"""The inventory: `machines.toml`, which describes the machines that can be harvested and how to log in to them.

It holds no secrets: credentials are a key file, the agent, or the name of an environment variable.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import platformdirs
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from symcache.errors import NotFoundError, UsageError
from symcache.model import APPLE_BUILD
from symcache.text import excerpt
from symcache_provisioning.drivers import DRIVERS, DriverOptions
from symcache_provisioning.ssh.host_keys import HostKeyTrust
from symcache_provisioning.ssh.login import Login, SshTarget

__all__ = ["Inventory", "MachineDefinition", "find_inventory"]

FILE_NAME = "machines.toml"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
"""No `.` and no `/`, which would make it a path as a SOURCE, and no leading `-`, which drivers take for an option."""
_SECRETS = frozenset({"password", "passwd", "passphrase", "secret", "token"})
_MAX_FILE = 1 << 20


def _image(value: str) -> str:
    if value.startswith("-"):
        raise ValueError("must not begin with -, which programs take for an option")
    if not value.isprintable() or value != value.strip():
        raise ValueError("must be printable, without blanks around it")
    return value


def _absolute(value: str) -> str:
    if not value.startswith("/") or ".." in value.split("/") or not value.isprintable():
        raise ValueError("must be an absolute folder of the machine, without ..")
    return value


def _pin(value: str) -> str:
    try:
        HostKeyTrust(value)
    except UsageError as error:
        raise ValueError(f"is no fingerprint of a host key: {error.hint}") from error
    return value


Folder = Annotated[str, AfterValidator(_absolute)]
Tag = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$")]


class MachineDefinition(BaseModel):
    """One machine of the inventory. Validated, so that no program takes a value for an option."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    driver: str
    image: Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_image)] | None = None
    """The VM or image that runs are clones of, as the driver names it; a static host has none."""
    user: str = "admin"
    host: str | None = None
    """Of a static host; other drivers find it."""
    port: Annotated[int, Field(ge=1, le=65535)] = 22
    root: Folder = "/"
    """The root of the system to read, if it is one mounted on the machine."""
    identity: Path | None = None
    agent: bool = True
    password_env: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$", max_length=100)] | None = None
    host_key: Annotated[str, AfterValidator(_pin)] | None = None
    version: Annotated[str, Field(pattern=r"^[0-9]{1,4}(\.[0-9]{1,6}){0,3}$")] | None = None
    build: Annotated[str, Field(pattern=f"^{APPLE_BUILD}$")] | None = None
    roots: tuple[Folder, ...] = ()
    """Folders to search for Mach-O files, instead of the usual ones."""
    tags: tuple[Tag, ...] = ()
    boot_timeout: Annotated[float, Field(gt=0, le=7200)] = 300
    """Seconds within which a started machine must answer over SSH."""
    options: SerializeAsAny[DriverOptions] = DriverOptions()

    @model_validator(mode="before")
    @classmethod
    def _no_secrets_and_options_of_the_driver(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        for key in data:
            if str(key).lower() in _SECRETS:
                raise PydanticCustomError(
                    "secret",
                    "is a secret, which must not stand in a file: name an environment variable with password_env",
                    {"key": str(key)},
                )
        driver = DRIVERS.get(str(data.get("driver")))
        if driver is not None and isinstance(data.get("options", {}), Mapping):
            try:
                options = driver.options_type.model_validate(dict(data.get("options", {})))
            except ValidationError as error:
                first = error.errors(include_url=False, include_context=False, include_input=False)[0]
                raise PydanticCustomError(
                    "option", "{reason}", {"path": ("options", *first["loc"]), "reason": _reason(first)}
                ) from error
            return {**data, "options": options}
        return data

    @model_validator(mode="after")
    def _fits_the_driver(self) -> MachineDefinition:
        driver = DRIVERS.get(self.driver)
        if driver is None:
            raise PydanticCustomError(
                "driver", "must be one of {known}", {"known": ", ".join(DRIVERS), "key": "driver"}
            )
        if driver.capabilities.life_cycle and self.image is None:
            raise PydanticCustomError(
                "image", "is missing: driver {driver} clones it", {"driver": self.driver, "key": "image"}
            )
        if driver.capabilities.life_cycle and self.host is not None:
            raise PydanticCustomError(
                "host", "is found out by driver {driver}: leave it out", {"driver": self.driver, "key": "host"}
            )
        if not driver.capabilities.life_cycle and (self.host is None or self.image is not None):
            key = "host" if self.host is None else "image"
            problem = "is missing" if key == "host" else "makes no sense"
            raise PydanticCustomError("host", problem + ": the driver is static", {"key": key})
        try:
            SshTarget.parse(f"ssh://{self.user}@{self.host or 'machine'}:{self.port}")
        except UsageError as error:
            key = "host" if self.host is not None and "host name" in str(error) else "user"
            raise PydanticCustomError("target", "{reason}", {"reason": str(error), "key": key}) from error
        return self

    @property
    def login(self) -> Login:
        """Credentials: the identity, or the agent's keys; then the password in the environment variable."""
        return Login(self.identity.expanduser() if self.identity else None, self.password_env, self.agent)


@dataclass(frozen=True)
class Inventory:
    """The machines of one file, in its order."""

    path: Path | None
    machines: dict[str, MachineDefinition] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path | None = None) -> Inventory:
        """Load `path`, or the file of `find_inventory`; without one, the inventory is empty.

        Raises UsageError, which names file and key.
        """
        file = Path(path).expanduser() if path is not None else find_inventory()
        if file is None:
            return cls(None)
        try:
            with file.open("rb") as opened:
                data = opened.read(_MAX_FILE + 1)
            if len(data) > _MAX_FILE:
                raise UsageError(f"{file}: larger than {_MAX_FILE} bytes", hint="is that the inventory?")
            content = tomllib.loads(data.decode())
        except FileNotFoundError as error:
            raise UsageError(f"{file}: no such file", hint="check --machines and SYMCACHE_MACHINES") from error
        except OSError as error:
            raise UsageError(f"{file}: cannot be read: {error.strerror}", hint="check who may read it") from error
        except ValueError as error:  # tomllib's message names the line
            raise UsageError(f"{file}: not TOML: {error}", hint="correct the file there") from error
        return cls(file, _machines(file, content))

    def get(self, name: str) -> MachineDefinition:
        """Return a machine. Raises NotFoundError, which names those that exist."""
        if name in self.machines:
            return self.machines[name]
        if self.path is None:
            raise NotFoundError(
                f"{excerpt(name)}: no machine of that name: there is no inventory of machines",
                hint=f"describe it in {FILE_NAME} (docs/machines.md), or write ssh://user@{excerpt(name)}",
            )
        raise NotFoundError(
            f"{excerpt(name)}: {self.path} has no machine of that name",
            hint=f"it has: {', '.join(self.machines) or 'none'}",
        )

    def tagged(self, tags: Sequence[str]) -> list[MachineDefinition]:
        """Return the machines that have all of these tags: every one, without any."""
        return [m for m in self.machines.values() if set(tags) <= set(m.tags)]


def find_inventory() -> Path | None:
    """Return the file that SYMCACHE_MACHINES names, else `machines.toml` here or in the user's configuration."""
    named = os.environ.get("SYMCACHE_MACHINES")
    if named:
        return Path(named).expanduser()
    locations = (Path(FILE_NAME), platformdirs.user_config_path("symcache") / FILE_NAME)
    return next((p for p in locations if p.is_file()), None)


def _machines(file: Path, content: Mapping[str, Any]) -> dict[str, MachineDefinition]:
    for key in content:
        if key != "machines":
            raise UsageError(
                f"{file}: {excerpt(key)}: unknown key",
                hint="machines are described in tables [machines.NAME]",
            )
    tables = content.get("machines", {})
    if not isinstance(tables, Mapping):
        raise UsageError(f"{file}: machines: must be tables", hint="write [machines.NAME]")
    machines = {}
    for name, table in tables.items():
        where = ["machines", name]
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{file}: {excerpt(name)!r} cannot be the name of a machine",
                hint="use letters, digits, - and _, at most 40, and begin with a letter or digit",
            )
        if not isinstance(table, Mapping) or "name" in table:
            raise UsageError(
                f"{file}: {'.'.join(where)}: must be a table without `name`",
                hint=f"write [machines.{name}]",
            )
        try:
            machines[name] = MachineDefinition.model_validate({**table, "name": name})
        except ValidationError as error:
            raise _failure(file, where, error) from error
    return machines


def _failure(file: Path, where: list[str], error: ValidationError) -> UsageError:
    # Without values, as one may be a password in the wrong place.
    first = error.errors(include_url=False, include_input=False)[0]
    context = first.get("ctx", {})
    path = [*where, *map(str, first["loc"] or context.get("path") or [context.get("key", "")])]
    path = [p for p in path if p]
    key = ".".join(path)
    return UsageError(f"{file}: {key}: {_reason(first)}", hint="docs/machines.md lists the keys of an inventory")


def _reason(error: Mapping[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown key"
    if error["type"] == "missing":
        return "is missing"
    message = str(error["msg"]).removeprefix("Value error, ")
    return message[:1].lower() + message[1:]
