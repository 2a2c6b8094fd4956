"""`symcache harvest`: a macOS machine, a mounted image or a folder into the library."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import platformdirs
import typer
from rich.progress import Progress, TaskID

from symcache.cli.common import (
    JsonOption,
    LibraryOption,
    byte_progress,
    console,
    count_progress,
    emit_json,
    errors_to_exit,
    out,
    plain,
)
from symcache.cli.settings import open_library
from symcache.errors import IncompleteError, NotFoundError, UsageError
from symcache.model import uuid_text
from vm_provisioning import (
    DEFAULT_ROOTS,
    DirectorySource,
    HarvestResult,
    HostKeyTrust,
    IpswSource,
    Login,
    SshSession,
    SshSource,
    SshTarget,
    harvest,
)

__all__ = ["register"]

_SHOWN = 20


class ExtractorChoice(StrEnum):
    """Who takes images out of shared caches."""

    AUTO = "auto"
    RAW = "raw"
    UTIL = "util"


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("harvest")(harvest_command)


def harvest_command(
    source: Annotated[
        str,
        typer.Argument(
            help="ssh://user@host, with :port and /folder where need be, the root folder of a system, or an .ipsw."
        ),
    ],
    extractor: Annotated[
        ExtractorChoice,
        typer.Option(
            help="raw: copy the shared caches and extract here. util: let dyld_shared_cache_util do it in the guest."
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
    staging: Annotated[
        Path | None, typer.Option("--staging", metavar="FOLDER", help="Where to keep copies until all is stored.")
    ] = None,
    no_keep_caches: Annotated[
        bool, typer.Option("--no-keep-caches", help="Of the raw shared caches, store headers and image tables only.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Store every Mach-O of a macOS system: exit 0 when all of it is there, 1 when something is missing."""
    with errors_to_exit():
        roots = _roots(root)
        opened_source = _source(source, identity, host_key, trust_new_host, password_env)
        with opened_source as session, open_library(library, create=True) as opened, _Display() as display:
            result = harvest(
                session,
                opened,
                staging=staging or platformdirs.user_cache_path("symcache") / "staging",
                extractor=extractor.value,
                roots=roots,
                archs=tuple(arch or ()),
                keep_caches=not no_keep_caches,
                util_path=util_path,
                progress=display,
            )
        if json:
            emit_json(_as_json(result))
        else:
            _show(result)
        if not result.sealed:
            raise IncompleteError(
                f"{result.source}: the harvest of {result.release} is stored, but not sealed:"
                f" {len(result.missing)} images missing, {len(result.problems)} problems",
                hint="mend what is named above and run the same command again: it continues where it stopped",
            )


class _SourceContext:
    """A source, and what is to be closed after it: its session, or its mounts."""

    def __init__(self, source: SshSource | DirectorySource) -> None:
        self._source = source

    def __enter__(self) -> SshSource | DirectorySource:
        if isinstance(self._source, IpswSource):
            with console.status(f"mounting {plain(self._source.file)}"):
                self._source.__enter__()
        if isinstance(self._source, SshSource):
            with console.status(f"connecting to {plain(self._source.name)}"):
                self._source.session.connect()
        return self._source

    def __exit__(self, *_: object) -> None:
        if isinstance(self._source, IpswSource):
            self._source.close()
        if isinstance(self._source, SshSource):
            self._source.session.close()


def _source(
    text: str, identity: Path | None, host_key: str | None, trust_new_host: bool, password_env: str | None
) -> _SourceContext:
    if "://" in text:
        target = SshTarget.parse(text)
        if identity is not None and not identity.expanduser().is_file():
            raise UsageError(f"{identity}: no such file", hint="name the private key, not the .pub")
        session = SshSession(
            target,
            trust=HostKeyTrust.for_user(pin=host_key, trust_new=trust_new_host),
            login=Login(identity.expanduser() if identity else None, password_env),
            announce=lambda text: console.print(f"[yellow]host key:[/] {plain(text)}", soft_wrap=True),
        )
        return _SourceContext(SshSource(session))
    if host_key or trust_new_host or identity or password_env:
        raise UsageError(f"{text}: SSH options go with an ssh:// URL", hint="write ssh://user@host")
    if text.endswith(".ipsw"):
        return _SourceContext(IpswSource(Path(text).expanduser()))
    if "/" in text or "." in text:
        if not Path(text).expanduser().exists():
            raise UsageError(f"{text}: no such folder", hint="check the spelling, or write ssh://user@host")
        if not Path(text).expanduser().is_dir():
            raise UsageError(
                f"{text}: not a folder",
                hint="mount the image and name its mount point; for one cache: symcache extract",
            )
        return _SourceContext(DirectorySource(Path(text).expanduser()))
    raise NotFoundError(
        f"{text}: no machine of that name: there is no inventory of machines",
        hint=f"write ssh://user@{text}, or ./{text} for a folder",
    )


def _roots(given: list[str] | None) -> tuple[str, ...]:
    for folder in given or ():
        if not folder.startswith("/") or ".." in folder.split("/"):
            raise UsageError(
                f"{folder}: --root wants an absolute folder of the harvested system", hint="e.g. --root /usr/local/lib"
            )
    return tuple(given or DEFAULT_ROOTS)


class _Display:
    """Shows one progress bar a step, of the kind that the step is counted in."""

    def __init__(self) -> None:
        self._bars: dict[str, Progress] = {}
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> _Display:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, title: str, *, unit: Literal["bytes", "things"], total: int | None = None) -> None:
        """Close the bar of the step before, and open one for this."""
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


def _show(result: HarvestResult) -> None:
    for cache in result.caches:
        uuid = uuid_text(cache.uuid) if cache.uuid else "no UUID"
        out.print(f"{plain(cache.path)}  {plain(cache.arch)}  {uuid}  {cache.images} images")
    state = "[green]sealed[/]" if result.sealed else "[yellow]partial[/]"
    by = f" by {result.extractor}" if result.extractor else ""
    out.print(
        f"{plain(str(result.release))}: {state}, {result.images} images{by}, {result.stored} files new,"
        f" {result.skipped} stored before"
    )
    missing = [f"{m.path} ({m.arch}, {uuid_text(m.uuid) if m.uuid else 'no UUID'})" for m in result.missing]
    for title, texts in (("missing", missing), ("problem", result.problems), ("note", result.notes)):
        for text in texts[:_SHOWN]:
            console.print(f"[yellow]{title}:[/] {plain(text)}", soft_wrap=True)
        if len(texts) > _SHOWN:
            console.print(f"[yellow]{title}:[/] and {len(texts) - _SHOWN} more (--json lists them all)")


def _as_json(result: HarvestResult) -> dict[str, object]:
    return {
        "release": result.release.model_dump(),
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
    }
