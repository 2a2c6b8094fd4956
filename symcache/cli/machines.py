"""`symcache vm`: the machines of the inventory, looked at, made, started, set up and taken down."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from symcache.cli.common import JsonOption, console, emit_json, errors_to_exit, out, plain
from symcache.errors import IncompleteError, NotFoundError, SymcacheError, UsageError
from vm_provisioning import (
    Check,
    Driver,
    Inventory,
    Machine,
    MachineDefinition,
    Outcome,
    Provisioner,
    Run,
    RunStore,
    Step,
    Stray,
    Verdict,
    examine,
    make_driver,
    remote_login_out_of_band,
    strays,
)

__all__ = ["announce", "register"]

MachinesOption = Annotated[
    Path | None, typer.Option("--machines", metavar="FILE", help="Inventory to use [env: SYMCACHE_MACHINES].")
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A machine of the inventory.")]
NamesArgument = Annotated[list[str], typer.Argument(metavar="NAME…", help="Machines of the inventory.")]
TrustOption = Annotated[
    bool, typer.Option("--trust-new-host", help="Believe the host key of a machine that was never seen before.")
]
_COLOURS = {
    **dict.fromkeys(("ok", "done", "running", "up"), "green"),
    **dict.fromkeys(("warn", "skipped", "would do", "abandoned"), "yellow"),
    **dict.fromkeys(("fail", "failed", "missing"), "red"),
}


def register(app: typer.Typer) -> None:
    """Add the group of commands of this module."""
    group = typer.Typer(no_args_is_help=True, help="Look after the machines that are harvested (`machines.toml`).")
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


def announce(text: str) -> None:
    """Tell on stderr what a machine does, and what is trusted."""
    console.print(f"[dim]{plain(text)}[/]", soft_wrap=True)


def _coloured(word: str) -> str:
    colour = _COLOURS.get(word)
    return f"[{colour}]{plain(word)}[/]" if colour else plain(word)


def list_machines(
    tag: Annotated[
        list[str] | None, typer.Option("--tag", help="Only machines with this tag; may be repeated.")
    ] = None,
    machines: MachinesOption = None,
    json: JsonOption = False,
) -> None:
    """Show the inventory, what each machine does, and machines that were made and lost."""
    with errors_to_exit():
        inventory, store = Inventory.load(machines), RunStore()
        chosen = [m for m in inventory.machines.values() if not tag or set(tag) <= set(m.tags)]
        runs = store.runs()
        rows = [_row(m, [r for r in runs if r.definition.name == m.name], store) for m in chosen]
        # Drivers of runs, too, whose machine has left the inventory since.
        definitions = [*inventory.machines.values(), *(r.definition for r in runs)]
        lost, problems = strays(store, _drivers(definitions, store))
        others = [r for r in runs if r.definition.name not in inventory.machines and not r.abandoned]
        if json:
            emit_json(
                {
                    "inventory": str(inventory.path) if inventory.path else None,
                    "machines": rows,
                    "strays": [_stray(s) for s in lost],
                    "runs": [_run(r) for r in others],
                    "problems": problems,
                }
            )
            return
        _show(rows, lost, others, inventory)
        for problem in problems:
            console.print(f"[yellow]problem:[/] {plain(problem)}", soft_wrap=True)


def _drivers(definitions: list[MachineDefinition], store: RunStore) -> list[Driver[Any]]:
    """Return every driver that is used, once for each of the places that its options name."""
    places: dict[tuple[Any, ...], Driver[Any]] = {}
    for definition in definitions:
        options = definition.options
        key = (definition.driver, *(getattr(options, name, None) for name in ("folder", "uri")))
        places.setdefault(key, make_driver(definition.driver, options, store.driver_folder))
    return list(places.values())


def _row(definition: MachineDefinition, runs: list[Run], store: RunStore) -> dict[str, Any]:
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


def _stray(stray: Stray) -> dict[str, Any]:
    return {"driver": stray.driver, "vm": stray.vm, "run": stray.run.name if stray.run else None}


def _show(rows: list[dict[str, Any]], lost: list[Stray], others: list[Run], inventory: Inventory) -> None:
    if not rows:
        where = plain(str(inventory.path)) if inventory.path else "no machines.toml was found"
        out.print(f"no machines ({where}); docs/machines.md tells how to describe them")
    else:
        table = Table("machine", "driver", "image or host", "expected", "state", box=None, pad_edge=False)
        for row in rows:
            states = [
                _coloured(r["state"]) + (f" at {r['host']}:{r['port']}" if r["port"] else "") for r in row["runs"]
            ]
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
    for stray in lost:
        if stray.run:
            next_ = f"symcache vm down {stray.run.name}"
        else:
            next_ = f"no record of it here: if nobody uses it, remove it with {stray.driver}"
        console.print(f"[yellow]stray:[/] {plain(stray.vm)} ({stray.driver}); {plain(next_)}", soft_wrap=True)


def doctor(
    names: NamesArgument,
    up: Annotated[bool, typer.Option("--up", help="Bring a machine up that is not, and take it down again.")] = False,
    machines: MachinesOption = None,
    trust_new_host: TrustOption = False,
    json: JsonOption = False,
) -> None:
    """Tell what machines lack to be harvested, and what mends it: exit 1 when something fails."""
    with errors_to_exit():
        chosen = _chosen(names, machines)
        found: dict[str, list[Check]] = {}
        for machine in chosen:
            checks = found.setdefault(machine.definition.name, [])
            if not json and len(chosen) > 1:
                out.print(f"[bold]{machine.definition.name}[/]")
            for check in _examined(machine, up, trust_new_host):
                checks.append(check)
                if not json:
                    _print_line(str(check.verdict), check.name, check.text, check.mend)
        if json:
            emit_json(
                {
                    name: [{"check": c.name, "verdict": c.verdict, "text": c.text, "mend": c.mend} for c in checks]
                    for name, checks in found.items()
                }
            )
        failed = [name for name, checks in found.items() if any(c.verdict is Verdict.FAIL for c in checks)]
        if failed:
            raise IncompleteError(
                f"{', '.join(failed)}: cannot be harvested as {'it is' if len(failed) == 1 else 'they are'}",
                hint="do what stands behind each fail above" if not json else "see `mend` of each check that fails",
            )


def _examined(machine: Machine, up: bool, trust_new_host: bool) -> Iterator[Check]:
    if not up or not machine.driver.capabilities.life_cycle:
        run = machine.current() if machine.driver.capabilities.life_cycle and _installed(machine) else None
        yield from examine(machine, run)
        return
    try:
        with machine.reached() as run:
            if trust_new_host:
                machine.trust(run, trust_new=True)
            yield from examine(machine, run)
    except SymcacheError as error:
        yield Check("up", Verdict.FAIL, str(error), error.hint)


def _installed(machine: Machine) -> bool:
    try:
        return bool([p.find() for p in machine.driver.programs])
    except SymcacheError:
        return False


def _print_line(word: str, name: str, text: str, hint: str) -> None:
    out.print(f"{_coloured(word)}{' ' * (8 - len(word))} {name:<13} {plain(text)}")
    if hint:
        out.print(f"{'':22} [dim]next:[/] {plain(hint)}")


def create(
    name: NameArgument,
    from_ipsw: Annotated[str, typer.Option("--from-ipsw", metavar="PATH|latest", help="What to install.")],
    machines: MachinesOption = None,
) -> None:
    """Install macOS as the image of a machine (tart, Anka)."""
    with errors_to_exit():
        (machine,) = _chosen([name], machines)
        if from_ipsw != "latest":
            path = Path(from_ipsw).expanduser()
            if not path.is_file():
                raise UsageError(f"{from_ipsw}: no such file", hint="name an .ipsw, or write latest")
            from_ipsw = str(path.absolute())
        with console.status(f"installing {plain(str(machine.definition.image))}"):
            left = machine.create(from_ipsw)
        image = plain(str(machine.definition.image))
        out.print(f"{image} is installed; next: {plain(left)}; then symcache vm provision {plain(name)}")


def up(
    names: NamesArgument,
    machines: MachinesOption = None,
    trust_new_host: TrustOption = False,
    json: JsonOption = False,
) -> None:
    """Clone machines from their images, start them, wait until SSH answers, and print where."""
    with errors_to_exit():
        chosen = _chosen(names, machines)
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
        typer.Argument(metavar="NAME…", help="Machines of the inventory, or runs as vm list names them."),
    ] = None,
    all_runs: Annotated[bool, typer.Option("--all", help="Everything that symcache has up.")] = False,
    json: JsonOption = False,
) -> None:
    """Stop machines that symcache started, and destroy the clones that it made."""
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


def provision(
    names: NamesArgument,
    util: Annotated[
        Path | None, typer.Option("--util", metavar="PATH", help="A dyld_shared_cache_util that you built, to install.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be done, and do nothing.")] = False,
    machines: MachinesOption = None,
    trust_new_host: TrustOption = False,
    json: JsonOption = False,
) -> None:
    """Set up what a harvest needs: key, Remote Login, no sleep, the extractor, fresh host keys. Twice changes nothing.

    A machine that is up is set up as it is; else its image is started and changed itself, so that all clones have it.
    """
    with errors_to_exit():
        if util is not None and not util.expanduser().is_file():
            raise UsageError(f"{util}: no such file", hint="name the dyld_shared_cache_util that you built")
        found: dict[str, list[Step]] = {}
        for machine in _chosen(names, machines):
            if not json and len(names) > 1:
                out.print(f"[bold]{machine.definition.name}[/]")
            steps = found[machine.definition.name] = _provisioned(machine, util, dry_run, trust_new_host)
            if not json:
                for step in steps:
                    _print_line(str(step.outcome), step.name, step.text, step.hint)
        if json:
            emit_json(
                {
                    name: [{"step": s.name, "outcome": s.outcome, "text": s.text, "next": s.hint} for s in steps]
                    for name, steps in found.items()
                }
            )
        failed = [name for name, steps in found.items() if any(s.outcome is Outcome.FAILED for s in steps)]
        if failed:
            raise IncompleteError(
                f"{', '.join(failed)}: not everything could be set up", hint="mend what failed, and run this again"
            )


def _provisioned(machine: Machine, util: Path | None, dry_run: bool, trust_new_host: bool) -> list[Step]:
    up_before = machine.driver.capabilities.life_cycle and machine.current() is not None
    with _set_up(machine) as run, machine.session(run, trust_new=trust_new_host) as session:
        provisioner = Provisioner(session, machine.definition, util.expanduser() if util else None, dry_run)
        steps = provisioner.run()
        if provisioner.new_host_key and run is not None:
            # What the guest shows from now on, as it told over a connection that was known to be its own.
            run.host_key = provisioner.new_host_key
            machine.store.save(run)
            if not run.cloned:
                machine.keys.remember(machine.definition, provisioner.new_host_key)
        if run is not None and not up_before:
            machine.shut_down(run, session)  # by this session: the next one would have to trust the new key
    return steps


@contextmanager
def _set_up(machine: Machine) -> Iterator[Run | None]:
    """Have the machine up to be changed: as it is, or else its image."""
    driver, image = machine.driver, str(machine.definition.image)
    if driver.capabilities.life_cycle and machine.current() is None and not driver.is_local(image):
        raise UsageError(
            f"{machine.definition.name}: its image {image} is not on this host, and cannot be changed",
            hint=f"clone it with {driver.name} to a machine of your own and name that as `image`,"
            f" or set up one run: symcache vm up {machine.definition.name}, then this",
        )

    def rescue(run: Run) -> None:
        announce(f"{run.vm}: SSH is silent: switching Remote Login on from within")
        try:
            remote_login_out_of_band(lambda argv: driver.exec_out_of_band(run.vm, argv))
        except SymcacheError as error:
            announce(f"{run.vm}: {error}")

    with machine.reached(clone=False, rescue=rescue if driver.capabilities.out_of_band else None) as run:
        yield run


def _chosen(names: list[str], inventory: Path | None) -> list[Machine]:
    loaded = Inventory.load(inventory)
    return [Machine(loaded.get(name), announce=announce) for name in dict.fromkeys(names)]
