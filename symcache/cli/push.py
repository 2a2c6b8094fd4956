"""`symcache push` and `symcache token`: own binaries to a server, and who may send them."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import platformdirs
import typer

from symcache.cli.common import Table, emit_json, errors_to_exit, name_some, out, plain, show_images
from symcache.cli.help import Application
from symcache.cli.options import JsonOption, ServerOption
from symcache.cli.progress import byte_progress
from symcache.cli.settings import server_urls
from symcache.errors import UsageError
from symcache.kinds import uuid_text
from symcache.scratch import ScratchFolder

if TYPE_CHECKING:
    from symcache_server import Scope, TokenStore

__all__ = ["register"]

_tokens = Application(help="Who may read and write over HTTP. Run it on the server's machine, as its user.")


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(name="push")(push_paths)
    app.add_typer(_tokens, name="token")


def push_paths(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH")], server: ServerOption = None, json: JsonOption = False
) -> None:
    """Send own binaries and dSYMs to a server: files, folders, .app and .dSYM bundles, zips of them."""
    from symcache.client import PushedFile, push
    from symcache.library import stage_paths

    with errors_to_exit(), ScratchFolder("push") as scratch:
        urls = server_urls(server)
        if len(urls) != 1:
            raise UsageError(
                f"{len(urls)} servers are named, one is needed" if urls else "no server is named",
                hint="name one with --server, and its token: --server https://any:TOKEN@symbols.example",
            )
        staged = stage_paths(paths, Path(scratch))
        if staged.problems:
            raise UsageError(staged.problems[0], hint="nothing was sent; name only what can be read")
        name_some("note", staged.notes, in_json=False)
        files = [
            PushedFile(o.file, o.offset, o.size, o.path, o.uuid, tuple((s.recorded, s.place) for s in o.sources))
            for o in staged.objects
            if o.uuid is not None
        ]
        if not files:
            raise UsageError(f"{', '.join(map(str, paths))}: no Mach-O file with a UUID in there")
        with byte_progress() as bar:
            task = bar.add_task("sending", total=None)
            added, known = push(urls[0], files, lambda done, total: bar.update(task, completed=done, total=total))
        images = [
            {"path": o.path, "arch": o.arch, "kind": o.kind, "uuid": uuid_text(o.uuid)}
            for o in staged.objects
            if o.uuid
        ]
        if json:
            emit_json({"added": added, "known": known, "images": images})
        else:
            show_images(images)
            out.print(f"{added} added, {known} were there already")


def _store() -> TokenStore:
    from symcache_server import TokenStore

    return TokenStore(Path(platformdirs.user_state_path("symcache")) / "tokens.json")


@_tokens.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whom it is for.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            "--scope", metavar="read|write|admin", help="What it allows; may be repeated.", show_default="read"
        ),
    ] = None,
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="WHEN", help="90d, or a date: 2027-01-31.", show_default="never")
    ] = None,
    names: Annotated[
        bool,
        typer.Option(
            "--names", help="For naming functions, nothing else; prints the path to put behind a server's URL."
        ),
    ] = False,
) -> None:
    """Make a token and print it, this once."""
    from symcache_server import PATH_PREFIX

    with errors_to_exit():
        if names and scope:
            raise UsageError("--names is without a scope", hint="make two tokens: one for each purpose")
        scopes = () if names else [_scope(text) for text in scope or ["read"]]
        token = _store().create(name, scopes, _end(expires) if expires else None)
        out.print(PATH_PREFIX.format(token=token) if names else token, markup=False)


def _scope(text: str) -> Scope:
    from symcache_server import Scope

    try:
        return Scope(text)
    except ValueError:
        raise UsageError(f"{text[:80]!r}: is no scope", hint=f"name one of {', '.join(Scope)}") from None


def _end(text: str) -> datetime:
    """Return when a token expires: after so many days, or with the end of a date, UTC. Raises UsageError."""
    now = datetime.now(UTC)
    try:
        if text.endswith("d"):
            end = now + timedelta(days=int(text[:-1]))
        else:
            end = datetime.combine(date.fromisoformat(text), time.max, UTC)
    except (ValueError, OverflowError):
        raise UsageError(f"{text[:80]!r}: no time for a token to expire", hint="write 90d, or 2027-01-31") from None
    if end <= now:
        raise UsageError(f"{text}: is over", hint="name a day to come, or leave --expires out")
    return end


@_tokens.command(name="list")
def list_tokens(json: JsonOption = False) -> None:
    """List the tokens by name; the tokens themselves are not kept."""
    with errors_to_exit():
        rows = _store().all()
        if json:
            listed = [
                {"name": t.name, "scopes": sorted(t.scopes), "created": t.created, "expires": t.expires} for t in rows
            ]
            emit_json(listed)
            return
        if not rows:
            out.print("there is no token: `symcache token create NAME` makes one")
            return
        table = Table("name", "may", "created", "expires")
        for t in rows:
            ends = "never" if t.expires is None else f"{t.expires} (is over)" if t.has_expired else t.expires
            table.add_row(plain(t.name), ", ".join(sorted(t.scopes)) or "names", t.created, ends)
        out.print(table)


@_tokens.command()
def revoke(name: Annotated[str, typer.Argument(metavar="NAME", help="Whom it was for.")]) -> None:
    """Take a token back; a running server follows within a second."""
    with errors_to_exit():
        _store().revoke(name)
