"""What `symcache harvest` reads from: the sources that its argument names."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from symcache.cli.common import console, plain
from symcache.dyld import is_cache_name
from symcache.errors import EnvironmentFailure, NotFoundError, SymcacheError, UsageError
from symcache_provisioning import (
    DirectorySource,
    HarvestResult,
    HostKeyTrust,
    Inventory,
    IpswSource,
    Login,
    Machine,
    Source,
    SshConfig,
    SshSession,
    SshSource,
    SshTarget,
    recognize,
)

__all__ = ["HarvestSources", "harvest_each", "open_sources"]


@dataclass
class HarvestSources:
    """What there is to harvest."""

    sources: Sequence[Source]
    refused: Sequence[SymcacheError] = ()

    @property
    def several(self) -> bool:
        """Whether there is more than one, also of those that cannot be used."""
        return len(self.sources) + len(self.refused) > 1


def harvest_each(
    sources: Sequence[Source], harvest: Callable[[Source], HarvestResult], refused: list[SymcacheError]
) -> Iterator[HarvestResult]:
    """Yield what came of each source. What ends one alone goes to `refused`. Raises EnvironmentFailure."""
    for source in sources:
        try:
            result = harvest(source)
        except EnvironmentFailure:
            raise
        except SymcacheError as error:
            refused.append(error)
        else:
            yield result


@contextmanager
def open_sources(
    text: str,
    identity: Path | None,
    host_key: str | None,
    trust_new_host: bool,
    password_env: str | None,
    build: str | None,
) -> Iterator[tuple[HarvestSources, tuple[str, ...]]]:
    """Open the sources that `text` names; yield them, and the folders to search that the inventory has for them."""
    path = Path(text).expanduser()
    named = "/" in text or "." in text or (is_cache_name(text) and path.is_file())
    of_path = named and "://" not in text and not text.endswith(".ipsw")
    recognized = recognize(path, build) if of_path else None
    if recognized is None:
        if build:
            raise UsageError(
                f"{text}: says itself of which build it is",
                hint="leave --build out: that is for shared caches by themselves",
            )
        with _source(text, path, identity, host_key, trust_new_host, password_env) as (source, roots):
            yield HarvestSources([source]), roots
        return
    _refuse_ssh_options(text, identity, host_key, trust_new_host, password_env)
    yield HarvestSources(recognized.sources, recognized.refused), ()


def _refuse_ssh_options(
    text: str, identity: Path | None, host_key: str | None, trust_new_host: bool, password_env: str | None
) -> None:
    if host_key or identity or password_env or trust_new_host:
        raise UsageError(f"{text}: SSH options go with an ssh:// URL", hint="write ssh://user@host")


@contextmanager
def _source(
    text: str,
    path: Path,
    identity: Path | None,
    host_key: str | None,
    trust_new_host: bool,
    password_env: str | None,
) -> Iterator[tuple[Source, tuple[str, ...]]]:
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
    _refuse_ssh_options(text, identity, host_key, trust_new_host and ("/" in text or "." in text), password_env)
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
                hint="mount the image and name its mount point",
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
