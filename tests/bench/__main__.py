"""`python -m tests.bench [NAME...]`: runs every `bench_*` module beside this one; prints a table, writes bench.json.

What takes long is run where it is named only: `python -m tests.bench full-release [--scale 0.05]`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

import tests.bench
from tests.bench.harness import Row


def main() -> None:
    """Run the benches whose module names contain one of the arguments; without any, all but those on demand."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--scale", type=float, default=1, help="size of what is run on demand")
    arguments = parser.parse_args()
    words = [name.replace("-", "_") for name in arguments.names]
    console = Console()
    rows: list[Row] = []
    for module in sorted(m.name for m in pkgutil.iter_modules(tests.bench.__path__)):
        on_demand, named = module.startswith("ondemand_"), any(word in module for word in words)
        if not (on_demand or module.startswith("bench_")) or ((words or on_demand) and not named):
            continue
        console.print(f"[dim]{module} …[/]")
        with tempfile.TemporaryDirectory(prefix="symcache-bench-") as scratch:
            bench = importlib.import_module(f"tests.bench.{module}")
            rows += bench.run(Path(scratch), arguments.scale) if on_demand else bench.run(Path(scratch))
    table = Table("name", "value", "unit", "peer", "peer value", "ratio", "goal", "met", box=None, pad_edge=False)
    for row in rows:
        table.add_row(
            row.name,
            f"{row.value:,.3g}" if row.value < 100 else f"{row.value:,.0f}",
            row.unit,
            row.peer,
            "" if row.peer_value is None else f"{row.peer_value:,.3g}",
            "" if row.ratio is None else f"{row.ratio:.2f}",
            row.goal,
            "" if row.met is None else ("yes" if row.met else "[red]no[/]"),
        )
    console.print(table)
    Path("bench.json").write_text(json.dumps([r.to_json() for r in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
