"""Checks whether a machine can be harvested, and tells how to fix what it lacks. Changes nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import platformdirs

from symcache.errors import HostKeyError, SymcacheError
from symcache.files import nearest_existing
from symcache.model import Release
from symcache.text import excerpt
from symcache_provisioning.extractors.dsc_extractor_bundle import BUNDLE_PATH
from symcache_provisioning.extractors.dyld_shared_cache_util import TOOL, CacheUtil
from symcache_provisioning.extractors.guest_tool import EXTRACTED_SIZE, free_bytes
from symcache_provisioning.machines.checks import Check, Outcome
from symcache_provisioning.machines.guest import HOST_KEY_MARKER, GuestPaths, sleeps_after
from symcache_provisioning.machines.host_keys import PUBLIC_KEY_FILE
from symcache_provisioning.machines.life_cycle import Machine
from symcache_provisioning.machines.runs import Run
from symcache_provisioning.machines.session import MachineSource
from symcache_provisioning.sources.entries import RemoteCache
from symcache_provisioning.sources.required_caches import lacking_caches
from symcache_provisioning.ssh.local_network import LocalNetworkError
from symcache_provisioning.ssh.login import UnreachableError
from symcache_provisioning.ssh.probe import server_host_key, speaks_ssh
from symcache_provisioning.ssh.session import SshSession
from symcache_provisioning.staging import RESERVE

__all__ = ["check_machine"]

_PMSET = GuestPaths().pmset
_LONGEST_TEXT = 1000


def _ok(name: str, text: str) -> Check:
    return Check(name, Outcome.OK, text)


def _failed(name: str, error: SymcacheError) -> Check:
    return Check(name, Outcome.FAIL, str(error), error.hint)


def check_machine(machine: Machine, run: Run | None = None) -> Iterator[Check]:
    """Yield the checks of a machine, as they are made. `run` is a run that is up; static machines have none."""
    if machine.driver.capabilities.life_cycle:
        yield from _driver(machine)
        if run is None:
            hint = f"symcache vm up {machine.definition.name}, or symcache vm doctor --up {machine.definition.name}"
            yield Check("up", Outcome.WARN, "is not up: nothing more can be seen", hint)
            return
        yield _ok("up", f"{run.vm} since {run.created}")
    yield from _connection(machine, run)


def _driver(machine: Machine) -> Iterator[Check]:
    driver, definition = machine.driver, machine.definition
    try:
        programs = [program.find() for program in driver.programs]
    except SymcacheError as error:
        yield _failed("driver", error)
        return
    yield _ok("driver", f"{driver.name}: {', '.join(programs)}")
    image = str(definition.image)
    try:
        local = driver.is_local(image)
    except SymcacheError as error:
        yield _failed("image", error)
        return
    if local:
        yield _ok("image", f"{image} is on this host")
    elif driver.capabilities.create_from_ipsw and "/" in image:
        yield _ok("image", f"{image} is of a registry: downloaded when first cloned")
    else:
        create = driver.capabilities.create_from_ipsw
        hint = (
            f"symcache vm create {definition.name} --from-ipsw latest" if create else "check `image` in the inventory"
        )
        yield Check("image", Outcome.FAIL, f"{image}: {driver.name} has no such machine", hint)


def _connection(machine: Machine, run: Run | None) -> Iterator[Check]:
    definition, target = machine.definition, machine.target(run)
    host, key = target.ssh_host, ""
    if host.is_direct:
        try:
            answers = speaks_ssh(host.address, host.port, 10)
        except LocalNetworkError as error:
            yield _failed("local network", error)
            return
        if not answers:
            hint = "start it, and switch on Remote Login there: System Settings, General, Sharing"
            yield Check("remote login", Outcome.FAIL, f"{host.where} does not answer as an SSH server does", hint)
            return
        yield _ok("remote login", f"{host.where} answers")
        try:
            key = server_host_key(host.address, host.port)
        except SymcacheError as error:
            yield _failed("host key", error)
            return
    try:
        session = machine.session(run)
        session.connect()
    except HostKeyError as error:
        hint = f'compare it there with ssh-keygen -lf {PUBLIC_KEY_FILE}, then write host_key = "{key}" in the inventory'
        yield Check("host key", Outcome.FAIL, str(error), hint if key else error.hint)
        return
    except SymcacheError as error:
        if key:
            yield _ok("host key", f"{key} is the one we know")
        hint = error.hint
        if isinstance(error, UnreachableError) and definition.identity:
            hint += f"; once a password lets you in: symcache vm provision {definition.name}"
        yield Check("login", Outcome.FAIL, str(error), hint)
        return
    with session:
        if not host.is_direct:
            key = session.host_key
            yield _ok(
                "remote login", f"{host.where} answers, reached by {host.jump.name if host.jump else 'ProxyCommand'}"
            )
        if definition.host_key or (run is not None and run.host_key):
            yield _ok("host key", f"{key} is the one that {'is pinned' if definition.host_key else 'the guest told'}")
        else:
            hint = f'write host_key = "{key}" in the inventory'
            yield Check("host key", Outcome.WARN, f"{key} is known on this host only", hint)
        yield _ok("login", f"as {target.user}")
        if run is not None and "/" in str(definition.image) and not _has_own_keys(session):
            hint = f"symcache vm provision {definition.name}"
            yield Check("own keys", Outcome.WARN, "its host keys came with the image: others have them too", hint)
        yield from _system(machine, session)


def _has_own_keys(session: SshSession) -> bool:
    """Return whether the host keys were made on the machine, by the marker that `provision` writes."""
    try:
        return session.run(["/bin/cat", HOST_KEY_MARKER], max_output=4096).status == 0
    except SymcacheError:
        return False


def _system(machine: Machine, session: SshSession) -> Iterator[Check]:
    try:
        session.sftp  # noqa: B018 - opened on first use
    except SymcacheError as error:
        yield _failed("sftp", error)
        return
    yield _ok("sftp", "is offered")
    source = MachineSource(session, machine.definition)
    release: Release | None = None
    try:
        release = source.identity()
        yield _ok("release", excerpt(str(release)))
    except SymcacheError as error:
        yield _failed("release", error)
    caches: list[RemoteCache] = []
    try:
        caches = source.caches()
        lacking = list(lacking_caches(source, release, caches, host=source.host())) if release else []
    except SymcacheError as error:
        yield _failed("caches", error)
    else:
        yield _caches(source, caches, lacking)
    largest, name = max((c.size for c in caches), default=0), machine.definition.name
    checks: dict[str, Callable[[], Check]] = {
        "sleep": lambda: _sleep(source, name),
        "extractor": lambda: _extractor(source, name),
        "space there": lambda: _space_in_guest(source, EXTRACTED_SIZE * largest),
    }
    for title, check in checks.items():
        try:
            yield check()
        except SymcacheError as error:
            yield _failed(title, error)
            break  # the others would most likely wait for the same connection
    yield _space_on_this_host(sum(c.size for c in caches) + EXTRACTED_SIZE * largest)


def _caches(source: MachineSource, caches: list[RemoteCache], lacking: list[str]) -> Check:
    incomplete = [f"{c.name} lacks {', '.join(c.missing)}" for c in caches if c.missing]
    if problems := [*incomplete, *source.problems, *lacking]:
        hint = "check what is named, and `root` in the inventory"
        if incomplete:
            hint = "let the machine finish its update, and restart it"
        return Check("caches", Outcome.FAIL, excerpt("; ".join(problems), _LONGEST_TEXT), hint)
    if caches:
        return _ok("caches", ", ".join(f"{excerpt(c.arch)} ({c.size >> 20} MiB)" for c in caches))
    return Check("caches", Outcome.WARN, "there is no shared cache", "before macOS 11 the files are the release")


def _sleep(source: MachineSource, name: str) -> Check:
    output = source.run([_PMSET, "-g"], max_output=1 << 16)
    minutes = sleeps_after(output.stdout.decode("utf-8", "replace")) if output.status == 0 else None
    if minutes is None:
        return Check("sleep", Outcome.WARN, "pmset does not tell whether it sleeps", "run pmset -g there")
    if minutes == 0:
        return _ok("sleep", "never sleeps")
    text = f"sleeps after {minutes} min without a user, whoever is logged in over SSH; awake while it is harvested"
    return Check("sleep", Outcome.WARN, text, f"symcache vm provision {name}, or there: sudo pmset -a sleep 0")


def _extractor(source: MachineSource, name: str) -> Check:
    tool = CacheUtil.find(source)
    if tool is not None:
        return _ok("extractor", f"{tool.path} is there")
    bundle = source.lstat(BUNDLE_PATH)
    also = f"; {BUNDLE_PATH} is there" if bundle else ""
    return Check(
        "extractor",
        Outcome.WARN,
        f"{TOOL} is not there{also}: harvests copy the raw caches and extract here",
        f"symcache vm provision {name} --util PATH",
    )


def _space_in_guest(source: MachineSource, need: int) -> Check:
    free = free_bytes(source, "/tmp")  # noqa: S108 - where the guest extracts
    if free is None:
        return Check("space there", Outcome.WARN, "df does not tell the free space", "run df -k there")
    return _space("space there", free, need, "to extract there; --extractor raw needs none")


def _space_on_this_host(need: int) -> Check:
    folder = platformdirs.user_cache_path("symcache")
    where = f"in {_tilde(folder)}, {RESERVE >> 20} of them to be left free; --staging names another"
    return _space("space here", shutil.disk_usage(nearest_existing(folder)).free, need + RESERVE, where)


def _tilde(folder: Path) -> str:
    home = str(Path.home())
    return str(folder).replace(home, "~", 1)


def _space(name: str, free: int, need: int, where: str) -> Check:
    text = f"{free >> 20} MiB are free"
    if free >= need:
        return _ok(name, text)
    return Check(name, Outcome.WARN, f"{text} where {(need >> 20) + 1} MiB are needed {where}", "free some space")
