"""`symcache vm`: the machines of the inventory, looked at, made, started, set up and taken down."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from symcache.cli.common import Table, console, emit_json, errors_to_exit, out, plain
from symcache.cli.completion import complete_machines
from symcache.cli.help import Application
from symcache.cli.machine_options import (
    MachinesOption,
    NameArgument,
    NamesArgument,
    announce,
    chosen_machines,
    coloured,
)
from symcache.cli.machine_setup import doctor, provision
from symcache.cli.options import JsonOption, TagOption, TrustOption
from symcache.errors import NotFoundError, SymcacheError, UsageError

if TYPE_CHECKING:
    from symcache_provisioning import Driver, Inventory, MachineDefinition, OrphanedVM, Run, RunStore

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the group of commands of this module."""
    group = Application(help="Look after the machines that are harvested (`machines.toml`).")
    for name, command in (
        ("list", list_machines),
        ("doctor", doctor),
        ("create", create),
        ("up", up),
        ("down", down),
        ("provision", provision),
    ):
        group.command(name)(command)
    app.add_typer(group, name="vm")


def list_machines(
    tag: TagOption = None,
    machines: MachinesOption = None,
    json: JsonOption = False,
) -> None:
    """Show the inventory, the state of each machine, and orphaned VMs."""
    from symcache_provisioning import Inventory, RunStore, find_orphans

    with errors_to_exit():
        inventory, store = Inventory.load(machines), RunStore()
        runs = store.runs()
        rows = [_row(m, [r for r in runs if r.definition.name == m.name], store) for m in inventory.tagged(tag or ())]
        # Drivers of runs, too, whose machine has left the inventory since.
        definitions = [*inventory.machines.values(), *(r.definition for r in runs)]
        orphans, problems = find_orphans(store, _drivers(definitions, store))
        others = [r for r in runs if r.definition.name not in inventory.machines and not r.abandoned]
        if json:
            emit_json(
                {
                    "inventory": str(inventory.path) if inventory.path else None,
                    "machines": rows,
                    "orphans": [_orphan(o) for o in orphans],
                    "strays": [_orphan(o) for o in orphans],  # the old name of `orphans`, for one version more
                    "runs": [_run(r) for r in others],
                    "problems": problems,
                }
            )
            return
        _show(rows, orphans, others, inventory)
        for problem in problems:
            console.print(f"[yellow]problem:[/] {plain(problem)}", soft_wrap=True)


def _drivers(definitions: list[MachineDefinition], store: RunStore) -> list[Driver[Any]]:
    """Return every driver that is used, once for each folder or libvirt that its options name."""
    from symcache_provisioning import make_driver

    drivers: dict[tuple[Any, ...], Driver[Any]] = {}
    for definition in definitions:
        options = definition.options
        key = (definition.driver, *(getattr(options, name, None) for name in ("folder", "uri")))
        drivers.setdefault(key, make_driver(definition.driver, options, store.driver_folder))
    return list(drivers.values())


def _row(definition: MachineDefinition, runs: list[Run], store: RunStore) -> dict[str, Any]:
    from symcache_provisioning import make_driver

    driver = make_driver(definition.driver, definition.options, store.driver_folder)
    states = []
    for run in runs:
        try:
            state = "abandoned" if run.abandoned else str(driver.state(run.vm))
        except SymcacheError as error:
            state = str(error)
        states.append({**_run(run), "state": state})
    return {
        "name": definition.name,
        "driver": definition.driver,
        "image": definition.image,
        "host": definition.host,
        "version": definition.version,
        "build": definition.build,
        "tags": list(definition.tags),
        "runs": states,
    }


def _run(run: Run) -> dict[str, Any]:
    return {
        "run": run.name,
        "machine": run.definition.name,
        "vm": run.vm,
        "phase": str(run.phase),
        "host": run.host or None,
        "port": run.port or None,
        "user": run.definition.user,
        "host_key": run.definition.host_key or run.host_key,
        "since": run.created,
    }


def _orphan(orphan: OrphanedVM) -> dict[str, Any]:
    return {"driver": orphan.driver, "vm": orphan.vm, "run": orphan.run.name if orphan.run else None}


def _show(rows: list[dict[str, Any]], orphans: list[OrphanedVM], others: list[Run], inventory: Inventory) -> None:
    if not rows:
        where = plain(str(inventory.path)) if inventory.path else "no machines.toml was found"
        if inventory.machines:
            out.print(f"no machine has that tag ({where})")
        else:
            out.print(f"no machines ({where}); docs/machines.md tells how to describe them")
    else:
        table = Table("machine", "driver", "image or host", "expected", "state")
        for row in rows:
            states = [coloured(r["state"]) + (f" at {r['host']}:{r['port']}" if r["port"] else "") for r in row["runs"]]
            table.add_row(
                row["name"],
                row["driver"],
                plain(row["image"] or row["host"]),
                " ".join(filter(None, (row["version"], row["build"]))),
                ", ".join(states) or "[dim]not up[/]" if row["driver"] != "static" else "",
            )
        out.print(table)
    for run in others:
        out.print(f"{run.name}: up, but the inventory has no {plain(run.definition.name)} any more")
    for orphan in orphans:
        if orphan.run:
            next_ = f"symcache vm down {orphan.run.name}"
        else:
            next_ = f"no record of it here: if nobody uses it, remove it with {orphan.driver}"
        console.print(f"[yellow]orphaned:[/] {plain(orphan.vm)} ({orphan.driver}); {plain(next_)}", soft_wrap=True)


def create(
    name: NameArgument,
    from_ipsw: Annotated[str, typer.Option("--from-ipsw", metavar="PATH|latest", help="What to install.")],
    machines: MachinesOption = None,
) -> None:
    """Install macOS as the image of a machine (tart, Anka)."""
    from symcache_provisioning import create_machine

    with errors_to_exit():
        (machine,) = chosen_machines([name], machines)
        if from_ipsw != "latest":
            path = Path(from_ipsw).expanduser()
            if not path.is_file():
                raise UsageError(f"{from_ipsw}: no such file", hint="name an .ipsw, or write latest")
            from_ipsw = str(path.absolute())
        with console.status(f"installing {plain(str(machine.definition.image))}"):
            created = create_machine(machine, from_ipsw)
        image, provision = plain(str(machine.definition.image)), f"symcache vm provision {plain(name)}"
        if created.run is not None:
            where = f"up at {created.run.host}:{created.run.port}, and lets {plain(machine.definition.user)} in"
            out.print(f"{image} is installed, {where}; next: {provision}, then symcache vm down {plain(name)}")
            return
        if created.why:
            console.print(f"{image} does not set itself up: {plain(created.why)}", soft_wrap=True)
        out.print(f"{image} is installed; next: {plain(created.left)}; then {provision}")


def up(
    names: NamesArgument,
    machines: MachinesOption = None,
    trust_new_host: TrustOption = False,
    json: JsonOption = False,
) -> None:
    """Clone machines from their images, start them, wait until SSH answers, and print where."""
    with errors_to_exit():
        chosen = chosen_machines(names, machines)
        runs: list[Run] = []
        for machine in chosen:
            try:
                run = machine.current()
                if run:
                    announce(f"{machine.definition.name} is up already")
                else:
                    run = machine.up()
            except BaseException:
                if json:
                    emit_json([_run(run) for run in runs])  # those before it stay up
                raise
            runs.append(run)
            if not json:
                out.print(f"{run.name}  {machine.target(run)}")
            if trust_new_host:
                machine.trust(run, trust_new=True)
        if json:
            emit_json([_run(run) for run in runs])


def down(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            autocompletion=complete_machines,
            help="Machines of the inventory, or runs as vm list names them.",
        ),
    ] = None,
    all_runs: Annotated[bool, typer.Option("--all", help="Everything that symcache has up.")] = False,
    json: JsonOption = False,
) -> None:
    """Stop machines that symcache started, and destroy the clones that it made."""
    from symcache_provisioning import Machine, RunStore

    with errors_to_exit():
        store = RunStore()
        runs = store.runs()
        if bool(names) == all_runs:
            raise UsageError("name machines, or say --all", hint="symcache vm list shows what is up")
        for name in names or ():
            if not any(name in {r.name, r.definition.name} for r in runs):
                raise NotFoundError(
                    f"{name}: symcache has nothing up of that name",
                    hint="symcache vm list shows what is up; other machines are stopped with their own programs",
                )
        chosen = [r for r in runs if all_runs or {r.name, r.definition.name} & set(names or ())]
        failures = []
        for run in chosen:
            try:
                Machine(run.definition, store=store, announce=announce).down(run)
            except SymcacheError as error:
                failures.append(error)
                console.print(f"[yellow]problem:[/] {plain(str(error))}", soft_wrap=True)
                continue
            if not json:
                out.print(f"{run.name}: {'stopped and destroyed' if run.cloned else 'stopped'}")
        if json:
            emit_json([_run(r) for r in chosen])
        if failures:
            raise failures[0]
