"""What symcache has up: one small file a run, in the user's state folder, written before anything is made.

So a machine that was made and lost (by a kill, a power cut) is known to the next `vm list`, and `vm down` removes only
what stands here.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from symcache.errors import StorageError
from symcache.files import alone, published
from symcache_provisioning.drivers import RUN_PREFIX, Child, process_start
from symcache_provisioning.machines.inventory import MachineDefinition

__all__ = ["Phase", "Run", "RunStore"]


class Phase(StrEnum):
    """How far a run has come."""

    CLONING = "cloning"
    STARTING = "starting"
    UP = "up"
    STOPPING = "stopping"


class Run(BaseModel):
    """One machine that symcache has made or started. The definition is the inventory's as it was then."""

    model_config = ConfigDict(extra="ignore")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,80}$")]
    """Of the record; the driver's name too, where the machine is a clone."""
    definition: MachineDefinition
    vm: str
    """How the driver calls it."""
    cloned: bool
    """It is symcache's own, to be destroyed in the end."""
    temporary: bool = False
    """For one harvest: it is taken down by the process that brought it up."""
    phase: Phase = Phase.CLONING
    owner: int = 0
    owner_started: str = ""
    child: Child | None = None
    host: str = ""
    port: int = 0
    host_key: str | None = None
    """Fingerprint learnt from the guest itself, not by SSH."""
    created: str = ""

    @classmethod
    def new(cls, definition: MachineDefinition, *, clone: bool, temporary: bool = False) -> Run:
        """Return a run of this process that nobody knows yet."""
        name = f"{RUN_PREFIX}{definition.name}-{secrets.token_hex(3)}"
        return cls(
            name=name,
            definition=definition,
            vm=name if clone else str(definition.image),
            cloned=clone,
            temporary=temporary,
            owner=os.getpid(),
            owner_started=process_start(os.getpid()),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    @property
    def abandoned(self) -> bool:
        """The process that should have finished it, or taken it down, is gone."""
        return (self.temporary or self.phase is not Phase.UP) and process_start(self.owner) != self.owner_started


class RunStore:
    """The records of runs of this user on this host."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or platformdirs.user_state_path("symcache") / "machines"
        self.problems: list[str] = []

    @property
    def driver_folder(self) -> Path:
        """Where drivers keep files of their own."""
        return self.folder / "drivers"

    def log(self, run: Run) -> Path:
        """Return the file for what a run's process prints."""
        return self.folder / "logs" / f"{run.name}.log"

    def _path(self, name: str) -> Path:
        return self.folder / "runs" / f"{name}.json"

    def save(self, run: Run) -> None:
        """Write a run's record, whole or not at all. Raises StorageError."""
        path = self._path(run.name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with published(path, mode=0o600, sync=True) as part:
                part.write_text(run.model_dump_json(indent=2))
        except OSError as error:
            raise StorageError(
                f"{path}: cannot be written: {error.strerror}", hint="check who owns it, and the free space"
            ) from error

    def remove(self, run: Run) -> None:
        """Forget a run, and its log."""
        for path in (self._path(run.name), self.log(run)):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    def has(self, run: Run) -> bool:
        """Tell whether a run is written down."""
        return self._path(run.name).exists()

    def runs(self) -> list[Run]:
        """Return all runs, oldest first; a record that cannot be read is named in `problems`."""
        found = []
        for path in sorted((self.folder / "runs").glob("*.json")):
            try:
                run = Run.model_validate_json(path.read_bytes())
            except FileNotFoundError:
                continue  # taken down by somebody else just now
            except (OSError, ValidationError) as error:
                first = str(error).partition("\n")[0]
                self.problems.append(f"{path}: not the record of a run ({first}); look into it, then remove it")
                continue
            if run.name == path.stem:
                found.append(run)
        return sorted(found, key=lambda r: (r.created, r.name))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Let no other process of this user do what is done here at the same time."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with alone(self.folder / "lock"):
            yield
