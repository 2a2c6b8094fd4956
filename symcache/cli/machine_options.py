"""Options and output that the commands of `symcache vm` share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from symcache.cli.common import console, plain
from symcache.cli.completion import complete_machines

if TYPE_CHECKING:
    from symcache_provisioning import Machine

__all__ = ["MachinesOption", "NameArgument", "NamesArgument", "announce", "chosen_machines", "coloured"]

MachinesOption = Annotated[
    Path | None, typer.Option("--machines", metavar="FILE", help="Inventory to use [env: SYMCACHE_MACHINES].")
]
NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", autocompletion=complete_machines, help="A machine of the inventory.")
]
NamesArgument = Annotated[
    list[str], typer.Argument(metavar="NAME", autocompletion=complete_machines, help="Machines of the inventory.")
]
_COLOURS = {
    **dict.fromkeys(("ok", "done", "running", "up"), "green"),
    **dict.fromkeys(("warn", "skipped", "would do", "abandoned"), "yellow"),
    **dict.fromkeys(("fail", "failed", "missing"), "red"),
}


def announce(text: str) -> None:
    """Print a step, or a key that is trusted, on stderr."""
    console.print(f"[dim]{plain(text)}[/]", soft_wrap=True)


def coloured(state: str) -> str:
    """Return a state or outcome, escaped, in its colour."""
    colour = _COLOURS.get(state)
    return f"[{colour}]{plain(state)}[/]" if colour else plain(state)


def chosen_machines(names: list[str], inventory: Path | None) -> list[Machine]:
    """Return the named machines of the inventory, each once. Raises NotFoundError, UsageError."""
    from symcache_provisioning import Inventory, Machine

    loaded = Inventory.load(inventory)
    return [Machine(loaded.get(name), announce=announce) for name in dict.fromkeys(names)]
