"""What `symcache harvest` prints: progress, and the result for people or as JSON."""

from __future__ import annotations

from typing import Literal

from rich.progress import Progress, TaskID

from symcache.cli.common import byte_progress, console, count_progress, name_some, out, plain
from symcache.model import uuid_text
from symcache.text import counted
from symcache_provisioning import HarvestResult

__all__ = ["HarvestDisplay", "result_json", "show_result"]


class HarvestDisplay:
    """Shows a progress bar for each step, for bytes or for things."""

    def __init__(self) -> None:
        self._bars: dict[str, Progress] = {}
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> HarvestDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, title: str, *, unit: Literal["bytes", "things"], total: int | None = None) -> None:
        """Close the bar of the last step, and open one for this."""
        if self._bar is not None:
            self._bar.stop()
        if not console.is_terminal:
            console.print(plain(title))  # a log wants every step, and no bars
        self._bar = byte_progress() if unit == "bytes" else count_progress()
        self._task = self._bar.add_task(plain(title), total=total)
        self._bar.start()

    def advance(self, done: int, total: int | None = None) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total)


def show_result(result: HarvestResult) -> None:
    """Print a result for people, the verdict last: caches and totals on stdout, problems on stderr."""
    for cache in result.caches:
        uuid = uuid_text(cache.uuid) if cache.uuid else "no UUID"
        out.print(f"{plain(cache.path)}  {plain(cache.arch)}  {uuid}  {counted(cache.images, 'image')}")
    missing = [f"{m.path} ({m.arch}, {uuid_text(m.uuid) if m.uuid else 'no UUID'})" for m in result.missing]
    for title, texts in (("note", result.notes), ("missing", missing), ("problem", result.problems)):
        name_some(title, texts)
    state = "[green]sealed[/]" if result.sealed else "[yellow]partial[/]"
    if result.whole and not result.sealed:
        state = f"stored, never sealed: {plain(result.lacks)}"
    by = f" by {result.extractor}" if result.extractor else ""
    what = plain(str(result.release or result.source))
    out.print(
        f"{what}: {state}, {counted(result.images, 'image')}{by}, {counted(result.stored, 'file')} new,"
        f" {result.skipped} stored before"
    )


def result_json(result: HarvestResult) -> dict[str, object]:
    """Return a result as `--json` prints it."""
    return {
        "release": result.release.model_dump() if result.release else None,
        "source": result.source,
        "extractor": result.extractor,
        "record": result.record_id,
        "sealed": result.sealed,
        "images": result.images,
        "stored": result.stored,
        "skipped": result.skipped,
        "caches": [
            {"path": c.path, "arch": c.arch, "uuid": uuid_text(c.uuid) if c.uuid else None, "images": c.images}
            for c in result.caches
        ],
        "missing": [
            {"path": m.path, "arch": m.arch, "uuid": uuid_text(m.uuid) if m.uuid else None} for m in result.missing
        ],
        "problems": result.problems,
        "notes": result.notes,
        "lacks": result.lacks,
    }
