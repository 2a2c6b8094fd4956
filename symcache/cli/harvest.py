"""`symcache harvest`: a macOS machine, a mounted image or a folder into the library."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import platformdirs
import typer

from symcache.cli.common import JsonOption, LibraryOption, console, emit_json, errors_to_exit, plain
from symcache.cli.harvest_output import HarvestDisplay, result_json, show_result
from symcache.cli.settings import open_library, site_wants
from symcache.errors import IncompleteError, NotFoundError, UsageError
from symcache_provisioning import (
    DirectorySource,
    HostKeyTrust,
    Interrupts,
    Inventory,
    IpswSource,
    Login,
    Machine,
    Source,
    SshConfig,
    SshSession,
    SshSource,
    SshTarget,
    harvest,
)

__all__ = ["register"]


class ExtractorChoice(StrEnum):
    """What extracts images from shared caches."""

    AUTO = "auto"
    RAW = "raw"
    UTIL = "util"
    BUNDLE = "bundle"


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("harvest")(harvest_command)


def harvest_command(
    source: Annotated[
        str | None,
        typer.Argument(
            help="ssh://user@host, with :port and /folder where need be, the root folder of a system, or an .ipsw."
        ),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every machine of the inventory instead, several at a time, with a report.")
    ] = False,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", help="With --all: only machines with this tag; may be repeated.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="With --all: machines at a time.")] = 4,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="With --all: write a JUnit report.")] = None,
    extractor: Annotated[
        ExtractorChoice,
        typer.Option(
            help="raw: copy the shared caches and extract here. util: let dyld_shared_cache_util do it in the guest."
            " bundle: let macOS's own dsc_extractor.bundle do it there."
            " auto: raw, and util too where the guest has it, held against each other."
        ),
    ] = ExtractorChoice.AUTO,
    library: LibraryOption = None,
    root: Annotated[
        list[str] | None,
        typer.Option("--root", metavar="FOLDER", help="Folder to search for Mach-O files; may be repeated."),
    ] = None,
    arch: Annotated[
        list[str] | None, typer.Option("--arch", help="Only this architecture, e.g. arm64e; may be repeated.")
    ] = None,
    identity: Annotated[
        Path | None, typer.Option("--identity", metavar="FILE", help="Private SSH key to log in with.")
    ] = None,
    host_key: Annotated[
        str | None, typer.Option("--host-key", metavar="SHA256:…", help="Fingerprint that the host must show.")
    ] = None,
    trust_new_host: Annotated[
        bool, typer.Option("--trust-new-host", help="Believe the key of a host that was never seen before.")
    ] = False,
    password_env: Annotated[
        str | None, typer.Option("--password-env", metavar="NAME", help="Environment variable with the password.")
    ] = None,
    util_path: Annotated[
        str | None, typer.Option("--util-path", metavar="PATH", help="Where the guest has dyld_shared_cache_util.")
    ] = None,
    bundle_path: Annotated[
        str | None,
        typer.Option("--bundle-path", metavar="PATH", help="Where the guest has another dsc_extractor.bundle."),
    ] = None,
    staging: Annotated[
        Path | None, typer.Option("--staging", metavar="FOLDER", help="Where to keep copies until all is stored.")
    ] = None,
    no_keep_caches: Annotated[
        bool, typer.Option("--no-keep-caches", help="Of the raw shared caches, store headers and image tables only.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Store every Mach-O of a macOS system: exit 0 when all of it is there, 1 when something is missing."""
    with errors_to_exit(), Interrupts():  # a job that CI ends leaves nothing behind in the guest
        if bundle_path and extractor is not ExtractorChoice.BUNDLE:
            raise UsageError("--bundle-path goes with --extractor bundle", hint="add that, or leave it out")
        if every or source is None:
            if source is not None or not every:
                raise UsageError("name one source, or --all", hint="e.g. symcache harvest ssh://user@host")
            if identity or host_key or password_env or root:
                raise UsageError(
                    "--all: --identity, --host-key, --password-env and --root are of single machines",
                    hint="write them into machines.toml",
                )
            paths = {
                "--library": library,
                "--util-path": util_path,
                "--bundle-path": bundle_path,
                "--staging": str(staging) if staging else None,
            }
            options = _options(extractor, paths, arch, trust_new_host, no_keep_caches)
            _harvest_all(tag or [], jobs, junit, options, json)
            return
        if tag or junit:
            raise UsageError("--tag and --junit go with --all", hint="leave them out, or harvest --all")
        roots, wanted = _roots(root), site_wants()  # refused before anything is mounted
        with (
            _source(source, identity, host_key, trust_new_host, password_env) as (opened_source, own_roots),
            open_library(library, create=True) as opened,
            HarvestDisplay() as display,
        ):
            result = harvest(
                opened_source,
                opened,
                staging=staging or platformdirs.user_cache_path("symcache") / "staging",
                extractor=extractor.value,
                roots=roots or own_roots or None,
                archs=tuple(arch or ()),
                wanted=wanted,
                keep_caches=not no_keep_caches,
                util_path=util_path,
                bundle_path=bundle_path,
                progress=display,
            )
        if json:
            emit_json(result_json(result))
        else:
            show_result(result)
        if not result.sealed:
            raise IncompleteError(
                f"{result.source}: the harvest of {result.release} is stored, but not sealed:"
                f" {len(result.missing)} images missing, {len(result.problems)} problems",
                hint="fix what is named above and run the same command again: it continues where it stopped",
            )


def _options(
    extractor: ExtractorChoice,
    paths: dict[str, str | None],
    archs: list[str] | None,
    trust_new_host: bool,
    no_keep_caches: bool,
) -> list[str]:
    """Return the options for the harvest of each machine of `--all`."""
    flags = [("--trust-new-host", trust_new_host), ("--no-keep-caches", no_keep_caches)]
    return [
        *("--extractor", extractor.value),
        *(argument for name, value in paths.items() if value for argument in (name, value)),
        *(argument for value in archs or () for argument in ("--arch", value)),
        *(name for name, on in flags if on),
    ]


def _harvest_all(tags: list[str], jobs: int, junit: Path | None, options: list[str], json: bool) -> None:
    from symcache.cli import harvest_all  # noqa: PLC0415 - drivers and all are loaded for this only

    reports = harvest_all.harvest_machines(Inventory.load(), tags, options, jobs)
    if junit is not None:
        harvest_all.write_junit(reports, junit)
    if json:
        emit_json([r.to_json() for r in reports])
    else:
        harvest_all.show_reports(reports)
    if code := harvest_all.exit_code(reports):
        raise typer.Exit(code)


@contextmanager
def _source(
    text: str, identity: Path | None, host_key: str | None, trust_new_host: bool, password_env: str | None
) -> Iterator[tuple[Source, tuple[str, ...]]]:
    """Open the source that `text` names; yield it, and the folders to search that the inventory has for it."""
    if "://" in text:
        target = SshTarget.parse(text, SshConfig.for_user())
        if identity is not None and not identity.expanduser().is_file():
            raise UsageError(f"{identity}: no such file", hint="name the private key, not the .pub")
        session = SshSession(
            target,
            trust=HostKeyTrust.for_user(pin=host_key, trust_new=trust_new_host),
            login=Login(identity.expanduser() if identity else None, password_env),
            announce=_announce,
        )
        source = SshSource(session)
        with contextlib.closing(session):
            with console.status(f"connecting to {plain(source.name)}"):
                session.connect()
            yield source, ()
        return
    path = Path(text).expanduser()
    if host_key or identity or password_env or (trust_new_host and ("/" in text or "." in text)):
        raise UsageError(f"{text}: SSH options go with an ssh:// URL", hint="write ssh://user@host")
    if text.endswith(".ipsw"):
        image = IpswSource(path, announce=_announce)
        with contextlib.closing(image):
            with console.status(f"mounting {plain(text)}"):
                image.__enter__()
            yield image, ()
    elif "/" in text or "." in text:
        if not path.exists():
            raise UsageError(f"{text}: no such folder", hint="check the spelling, or write ssh://user@host")
        if not path.is_dir():
            raise UsageError(
                f"{text}: not a folder",
                hint="mount the image and name its mount point; for one cache: symcache extract",
            )
        yield DirectorySource(path), ()
    else:
        inventory = Inventory.load()
        if path.exists() and text in inventory.machines:
            raise UsageError(f"{text}: is a machine, and a folder here", hint=f"write ./{text} for the folder")
        try:
            definition = inventory.get(text)
        except NotFoundError as error:
            hint = f"write ./{text} for what is here of that name; {error.hint}" if path.exists() else error.hint
            raise NotFoundError(str(error), hint=hint) from error
        with Machine(definition, announce=_announce).source(trust_new=trust_new_host) as source:
            yield source, definition.roots


def _announce(text: str) -> None:
    console.print(plain(text), soft_wrap=True)


def _roots(given: list[str] | None) -> tuple[str, ...]:
    for folder in given or ():
        if not folder.startswith("/") or ".." in folder.split("/"):
            raise UsageError(
                f"{folder}: --root wants an absolute folder of the harvested system", hint="e.g. --root /usr/local/lib"
            )
    return tuple(given or ())
