"""What `symcache harvest` prints: progress, and the result for people or as JSON."""

from __future__ import annotations

import time

from rich.filesize import decimal

from symcache.cli.common import console, name_some, out, plain
from symcache.cli.progress import harvest_progress
from symcache.model import uuid_text
from symcache.text import counted
from symcache_provisioning import Amount, HarvestResult

__all__ = ["HarvestDisplay", "result_json", "show_result"]


_LOG_SECONDS = 60.0


class HarvestDisplay:
    """Shows one bar over the whole, with the step it is at; without a terminal, each step and a line a minute."""

    def __init__(self) -> None:
        self._bar = harvest_progress()
        self._task = self._bar.add_task("", total=None, amount="")
        self._logged = time.monotonic()

    def __enter__(self) -> HarvestDisplay:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def step(self, title: str) -> None:
        """Say what begins."""
        self._bar.update(self._task, description=plain(title))
        if not console.is_terminal:
            console.print(plain(title))

    def update(self, amount: Amount) -> None:
        """Move the bar."""
        text = _amount_text(amount)
        self._bar.update(self._task, completed=amount.share, total=1.0, amount=text)
        if not console.is_terminal and time.monotonic() - self._logged >= _LOG_SECONDS:
            self._logged = time.monotonic()
            console.print(text)


def _amount_text(amount: Amount) -> str:
    copied = f"{decimal(amount.copied)} of {decimal(amount.to_copy)} copied"
    images = f"{amount.images:,} of {amount.of_images:,} images stored" if amount.of_images else ""
    left = amount.seconds_left
    time_left = "" if left is None else f"{left / 60:.0f} min left" if left >= 90 else f"{left:.0f} s left"
    return ", ".join(filter(None, (copied, images, time_left)))


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
    files = counted(result.stored + result.skipped, "file")
    out.print(f"{what}: {state}, {counted(result.images, 'image')}{by}, {result.stored} of {files} new")


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
