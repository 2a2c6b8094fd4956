"""Records of the machines that symcache started: a small file for each run, written before the VM is made.

So `vm list` knows a VM that was lost by a kill or a power cut, and `vm down` removes only VMs that have a record.
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
from symcache.files import atomic_write, file_lock
from symcache_provisioning.drivers import RUN_PREFIX, Child, process_start
from symcache_provisioning.machines.inventory import MachineDefinition

__all__ = ["Phase", "Run", "RunStore"]


class Phase(StrEnum):
    """State of a run."""

    CLONING = "cloning"
    STARTING = "starting"
    UP = "up"
    STOPPING = "stopping"


class Run(BaseModel):
    """A machine that symcache made or started. `definition` is that of the inventory at that time."""

    model_config = ConfigDict(extra="ignore")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,80}$")]
    """Name of the record, and of the VM if it is a clone."""
    definition: MachineDefinition
    vm: str
    """Name of the VM, as the driver has it."""
    cloned: bool
    """The VM was made by symcache, and is destroyed at the end."""
    temporary: bool = False
    """It was started for one harvest, and the same process takes it down."""
    phase: Phase = Phase.CLONING
    owner: int = 0
    owner_started: str = ""
    child: Child | None = None
    host: str = ""
    port: int = 0
    host_key: str | None = None
    """Fingerprint read in the guest without the network."""
    created: str = ""

    @classmethod
    def new(cls, definition: MachineDefinition, *, clone: bool, temporary: bool = False) -> Run:
        """Return a new run of this process, which is not saved yet."""
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
        """Whether the process that should have finished it, or taken it down, has ended."""
        return (self.temporary or self.phase is not Phase.UP) and process_start(self.owner) != self.owner_started


class RunStore:
    """The records of runs of this user on this host."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or platformdirs.user_state_path("symcache") / "machines"
        self.problems: list[str] = []
        """Records that could not be read when `runs` was last called, one sentence each."""

    @property
    def driver_folder(self) -> Path:
        """Folder for files of drivers."""
        return self.folder / "drivers"

    def log(self, run: Run) -> Path:
        """Return the log file of a run's process."""
        return self.folder / "logs" / f"{run.name}.log"

    def _path(self, name: str) -> Path:
        return self.folder / "runs" / f"{name}.json"

    def save(self, run: Run) -> None:
        """Write a run's record, whole or not at all. Raises StorageError."""
        path = self._path(run.name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with atomic_write(path, mode=0o600, sync=True) as part:
                part.write_text(run.model_dump_json(indent=2))
        except OSError as error:
            raise StorageError(
                f"{path}: cannot be written: {error.strerror}", hint="check who owns it, and the free space"
            ) from error

    def remove(self, run: Run) -> None:
        """Remove the record of a run, and its log."""
        for path in (self._path(run.name), self.log(run)):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    def has(self, run: Run) -> bool:
        """Return whether a run has a record."""
        return self._path(run.name).exists()

    def runs(self) -> list[Run]:
        """Return all runs, oldest first. `problems` names the records that cannot be read."""
        runs: list[Run] = []
        self.problems = []
        for path in sorted((self.folder / "runs").glob("*.json")):
            try:
                run = Run.model_validate_json(path.read_bytes())
            except FileNotFoundError:
                continue  # removed by another process just now
            except (OSError, ValidationError) as error:
                first = str(error).partition("\n")[0]
                self.problems.append(f"{path}: not the record of a run ({first}); look into it, then remove it")
                continue
            if run.name == path.stem:
                runs.append(run)
        return sorted(runs, key=lambda r: (r.created, r.name))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the store against other processes of this user."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with file_lock(self.folder / "lock"):
            yield
