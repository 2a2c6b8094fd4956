"""Displays of how far a command is, on standard error. `add_task` says what it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from symcache.cli.common import console

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

__all__ = ["byte_progress", "count_progress", "harvest_progress", "percent_progress"]

# rich.progress is imported by those who show one: `lookup`, `open` and more have nothing to show, and are to answer at
# once.


def byte_progress() -> Progress:
    """Return a progress display for bytes: rate and time left."""
    from rich.progress import DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

    return _progress(DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn())


def count_progress() -> Progress:
    """Return a progress display for things: how many of how many, and time left."""
    from rich.progress import MofNCompleteColumn, TimeRemainingColumn

    return _progress(MofNCompleteColumn(), TimeRemainingColumn())


def harvest_progress() -> Progress:
    """Return a progress display whose tasks have a field `amount` that says how far they are."""
    from rich.progress import TextColumn

    return _progress(TextColumn("{task.fields[amount]}"))


def percent_progress() -> Progress:
    """Return a progress display for what is soon over: how much of it is done."""
    from rich.progress import TaskProgressColumn

    return _progress(TaskProgressColumn())


def _progress(*columns: ProgressColumn) -> Progress:
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,  # in a log, each would leave an empty line
    )
