"""`symcache harvest`: a macOS machine, a mounted image or a folder into the library."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import platformdirs
import typer

from symcache.cli.common import complain, emit_json, errors_to_exit
from symcache.cli.completion import complete_machines
from symcache.cli.options import (
    ArchsOption,
    CacheBuildOption,
    JsonOption,
    JunitOption,
    LibraryOption,
    NoKeepCachesOption,
    TagOption,
    TrustOption,
)
from symcache.cli.settings import open_library, site_wants
from symcache.errors import IncompleteError, SymcacheError, UsageError
from symcache.text import counted

if TYPE_CHECKING:
    from symcache_provisioning import HarvestResult, Source

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
            metavar="SOURCE",
            autocompletion=complete_machines,
            help="A machine of the inventory; ssh://user@host, with :port and /folder where need be; the root folder of"
            " a system, an .ipsw; shared caches by themselves, device support of Xcode's, a simulator runtime, a kernel"
            " debug kit.",
        ),
    ] = None,
    every: Annotated[
        bool,
        typer.Option("--all", help="Every machine of the inventory instead; --tag, --jobs and --junit are for it."),
    ] = False,
    tag: TagOption = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", metavar="N", min=1, max=64, help="Machines at a time.")] = 4,
    junit: JunitOption = None,
    extractor: Annotated[
        ExtractorChoice,
        typer.Option(
            metavar="auto|raw|util|bundle",
            help="raw: copy the shared caches and extract here. util: let dyld_shared_cache_util do it in the guest."
            " bundle: let macOS's own dsc_extractor.bundle do it there."
            " auto: raw, and util too where the guest has it, held against each other.",
        ),
    ] = ExtractorChoice.AUTO,
    library: LibraryOption = None,
    root: Annotated[
        list[str] | None,
        typer.Option("--root", metavar="DIR", help="Folder to search for Mach-O files; may be repeated."),
    ] = None,
    arch: ArchsOption = None,
    build: CacheBuildOption = None,
    identity: Annotated[
        Path | None, typer.Option("--identity", metavar="FILE", help="Private SSH key to log in with.")
    ] = None,
    host_key: Annotated[
        str | None, typer.Option("--host-key", metavar="SHA256:…", help="Fingerprint that the host must show.")
    ] = None,
    trust_new_host: TrustOption = False,
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
        Path | None, typer.Option("--staging", metavar="DIR", help="Where to keep copies until all is stored.")
    ] = None,
    no_keep_caches: NoKeepCachesOption = False,
    json: JsonOption = False,
) -> None:
    """Store every Mach-O of a macOS system: exit 0 when all of it is there, 1 when something is missing."""
    from symcache.cli.harvest_output import HarvestDisplay, result_json, show_result
    from symcache.cli.harvest_sources import harvest_each, open_sources
    from symcache_provisioning import Interrupts, harvest

    with errors_to_exit(), Interrupts():  # a job that CI ends leaves nothing behind in the guest
        if bundle_path and extractor is not ExtractorChoice.BUNDLE:
            raise UsageError("--bundle-path goes with --extractor bundle", hint="add that, or leave it out")
        if every or source is None:
            if source is not None or not every:
                raise UsageError("name one source, or --all", hint="e.g. symcache harvest ssh://user@host")
            if identity or host_key or password_env or root or build:
                raise UsageError(
                    "--all: --identity, --host-key, --password-env, --root and --build are of single machines",
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
            open_sources(source, identity, host_key, trust_new_host, password_env, build) as (
                found,
                own_roots,
            ),
            open_library(library, create=True) as opened,
        ):
            results: list[HarvestResult] = []
            refused = list(found.refused)

            def harvest_one(one: Source) -> HarvestResult:
                with HarvestDisplay() as display:
                    return harvest(
                        one,
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

            for result in harvest_each(found.sources, harvest_one, refused):
                results.append(result)
                if not json:
                    show_result(result)
        if len(refused) == 1 and not results:
            raise refused[0]
        if json:
            emit_json([result_json(r) for r in results] if found.several else result_json(results[0]))
        _conclude(source, results, refused)


def _conclude(source: str, results: Sequence[HarvestResult], refused: Sequence[SymcacheError]) -> None:
    """Raise IncompleteError if anything could not be taken, or is not whole."""
    for refusal in refused:
        complain(str(refusal), refusal.hint)
    if refused:
        count = counted(len(refused) + len(results), "folder")
        raise IncompleteError(f"{source}: {len(refused)} of {count} could not be taken", hint="see above why")
    for result in results:
        if not result.whole:
            raise IncompleteError(
                f"{result.source}: the harvest of {result.release or 'it'} is stored, but not sealed:"
                f" {counted(len(result.missing), 'image')} missing, {counted(len(result.problems), 'problem')}",
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
        "--extractor",
        extractor.value,
        *(argument for name, value in paths.items() if value for argument in (name, value)),
        *(argument for value in archs or () for argument in ("--arch", value)),
        *(name for name, on in flags if on),
    ]


def _harvest_all(tags: list[str], jobs: int, junit: Path | None, options: list[str], json: bool) -> None:
    from symcache.cli import harvest_all
    from symcache_provisioning import Inventory

    reports = harvest_all.harvest_machines(Inventory.load(), tags, options, jobs)
    if junit is not None:
        harvest_all.write_junit(reports, junit)
    if json:
        emit_json([r.to_json() for r in reports])
    else:
        harvest_all.show_reports(reports)
    if code := harvest_all.exit_code(reports):
        raise typer.Exit(code)


def _roots(given: list[str] | None) -> tuple[str, ...]:
    for folder in given or ():
        if not folder.startswith("/") or ".." in folder.split("/"):
            raise UsageError(
                f"{folder}: --root wants an absolute folder of the harvested system", hint="e.g. --root /usr/local/lib"
            )
    return tuple(given or ())
