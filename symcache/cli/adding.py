"""`symcache add`: own files, shares of think-cell's scripts, and copies that Apple's tools made."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import platformdirs
import typer

from symcache.cli.common import (
    complain,
    console,
    emit_json,
    errors_to_exit,
    name_some,
    out,
    plain,
    show_images,
)
from symcache.cli.options import CacheBuildOption, JsonOption, LibraryOption
from symcache.cli.progress import byte_progress
from symcache.cli.settings import open_library
from symcache.errors import IncompleteError, NotFoundError, SymcacheError, UsageError
from symcache.kinds import uuid_text
from symcache.scratch import ScratchFolder
from symcache.text import counted

if TYPE_CHECKING:
    from symcache.library import IngestResult, Library, Staged
    from symcache_provisioning import HarvestResult, Recognized, Source

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(add)


def add(
    paths: Annotated[list[Path] | None, typer.Argument(metavar="PATH")] = None,
    origin: Annotated[
        Path | None,
        typer.Option("--origin", metavar="DIR", help="A share that think-cell's minidump scripts filled."),
    ] = None,
    build: CacheBuildOption = None,
    library: LibraryOption = None,
    json: JsonOption = False,
) -> None:
    """Add own binaries: files, folders, .app and .dSYM bundles, zips of them; or copies that Apple's tools made.

    Such copies are shared caches by themselves, device support of Xcode, simulator runtimes and kernel debug kits.
    """
    with errors_to_exit(), ScratchFolder("add") as scratch:
        if paths and origin:
            raise UsageError("PATH and --origin exclude each other", hint="run the command twice")
        if not paths and not origin:
            raise UsageError("nothing to add is named", hint="e.g. symcache add build/Ledger.app build/Ledger.dSYM")
        run = _Adding(Path(scratch), build)
        run.find(origin, paths or [])
        with open_library(library, create=True) as opened:
            run.store(opened)
        run.show(json=json, by_release=origin is not None)


@dataclass
class _Adding:
    """One run: `find` what there is to add, `store` it, and `show` what came of it."""

    scratch: Path
    build: str | None
    parts: list[Staged] = field(default_factory=list)
    recognized: list[Recognized] = field(default_factory=list)
    records: list[tuple[Staged, IngestResult]] = field(default_factory=list)
    harvests: list[HarvestResult] = field(default_factory=list)
    refused: list[SymcacheError] = field(default_factory=list)

    def find(self, origin: Path | None, paths: Sequence[Path]) -> None:
        """Find what there is. Raises UsageError, NotFoundError."""
        from symcache.library import stage_origin, stage_paths

        if origin:
            self.parts = stage_origin(origin)
            return
        own, beside = [], []
        for path in paths:
            found = self._recognize(path)
            if found is None:
                own.append(path)
                continue
            self.recognized.append(found)
            self.refused += found.refused
            if found.others and path.is_dir():
                beside.append(path)
        if self.build and not self.recognized:
            raise UsageError("--build is for shared caches by themselves", hint="leave it out")
        if own:
            self.parts.append(stage_paths(own, self.scratch))
        with contextlib.suppress(NotFoundError):  # shared caches alone are enough
            self.parts += [stage_paths(beside, self.scratch)] if beside else []

    def _recognize(self, path: Path) -> Recognized | None:
        if path.is_file():
            with path.open("rb") as file:
                if file.read(7) != b"dyld_v1":
                    return None
        elif not path.is_dir():
            return None
        from symcache_provisioning import recognize

        return recognize(path, self.build)

    def store(self, library: Library) -> None:
        """Store all of it."""
        from symcache.library import ingest

        for staged in self.parts:
            with byte_progress() as bar:
                task = bar.add_task("storing", total=None)
                result = ingest(library, staged, lambda done, total: bar.update(task, completed=done, total=total))  # noqa: B023
            self.records.append((staged, result))
        if self.recognized:
            self._harvest(library)
        if len(self.refused) == 1 and not self.records and not self.harvests:
            raise self.refused[0]

    def _harvest(self, library: Library) -> None:
        """Store what Apple's tools made, as `symcache harvest` does."""
        from symcache.cli.harvest_output import HarvestDisplay
        from symcache.cli.harvest_sources import harvest_each
        from symcache.model import Trust
        from symcache_provisioning import harvest

        def harvest_one(source: Source) -> HarvestResult:
            with HarvestDisplay() as display:
                staging = platformdirs.user_cache_path("symcache") / "staging"
                return harvest(source, library, staging=staging, progress=display, trust=Trust.ADDED)

        self.harvests += harvest_each([s for r in self.recognized for s in r.sources], harvest_one, self.refused)

    def show(self, *, json: bool, by_release: bool) -> None:
        """Print what came of it. Raises IncompleteError if anything could not be added."""
        images = [
            {"path": m.path, "arch": m.arch, "kind": m.kind, "uuid": uuid_text(m.uuid) if m.uuid else None}
            for staged, _ in self.records
            for m in staged.manifest
        ]
        problems = [p for _, r in self.records for p in r.problems]
        if json:
            self._emit_json(images, problems)
        elif by_release:
            for staged, result in self.records:
                what = str(staged.release) if staged.release else "other binaries"
                out.print(
                    f"{plain(what)}: {counted(len(staged.objects), 'image')}, {counted(result.stored, 'file')} new"
                )
        else:
            show_images(images)
        if self.harvests and not json:
            from symcache.cli.harvest_output import show_result

            for done in self.harvests:
                show_result(done)
        if not json:
            name_some("note", [n for staged, _ in self.records for n in staged.notes])
        for conflict in [c for _, r in self.records for c in r.conflicts]:
            console.print(
                f"[yellow]conflict:[/] {uuid_text(conflict.uuid)} has other content already, which is still served"
                f" (`symcache prefer {uuid_text(conflict.uuid)} {conflict.contents[-1].sha256[:12]}` to change that)"
            )
        for problem in problems:
            console.print(f"[yellow]problem:[/] {plain(problem)}")
        for error in self.refused:
            complain(str(error), error.hint)
        partial = [h for h in self.harvests if not h.whole]
        if count := len(problems) + len(self.refused) + len(partial):
            only_files = problems and not self.refused and not partial
            what = counted(count, "file") if only_files else counted(count, "file or folder", "files and folders")
            raise IncompleteError(f"{what} could not be added", hint="see the problems above")

    def _emit_json(self, images: list[dict[str, str | None]], problems: list[str]) -> None:
        many = [{"build": s.release.build if s.release else None, "record": r.record_id} for s, r in self.records]
        many += [{"build": h.release.build if h.release else None, "record": h.record_id} for h in self.harvests]
        document: dict[str, object] = {
            "record": many[0]["record"] if many else None,
            "records": many,
            "images": images,
            "problems": problems,
        }
        if notes := [n for staged, _ in self.records for n in staged.notes]:
            document["notes"] = notes
        if self.harvests:
            from symcache.cli.harvest_output import result_json

            document["sources"] = [result_json(h) for h in self.harvests]
        emit_json(document)
