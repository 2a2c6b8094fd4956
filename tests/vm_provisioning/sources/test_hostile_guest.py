"""What a compromised guest may do over real SFTP: nothing but have itself refused by name."""

from __future__ import annotations

import itertools
import stat
import struct
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest

from symcache.errors import RemoteError, SymcacheError
from symcache.library import Library
from symcache_provisioning import HarvestResult, HostKeyTrust, Login, SshSession, SshSource, SshTarget, harvest
from symcache_provisioning.sources.entries import Limits
from symcache_provisioning.ssh import session
from symcache_provisioning.ssh.login import Timeouts
from symcache_provisioning.ssh.packets import ConnectionLostError
from symcache_provisioning.ssh.sftp import Sftp
from tests.support import hostile
from tests.support.hostile import Directory, File, HostileHost, Link, Special
from tests.support.systems import system_version
from tests.support.toolchain import compile_image

_SW_VERS = b"ProductName:\tMac OS X\nProductVersion:\t10.15.7\nBuildVersion:\t19H2026\n"
"""A release that is whole without shared caches."""
_FEW = Limits(folder_entries=2000, entries=10_000, pending=100, images=50)


def programs(command: bytes) -> tuple[bytes, bytes, int]:
    return (_SW_VERS, b"", 0) if b"sw_vers" in command else (b"", b"no such program", 127)


@pytest.fixture(scope="session")
def dylib(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return compile_image(tmp_path_factory.mktemp("dylib"), "libgood.dylib", "int good;").read_bytes()


@pytest.fixture
def host(dylib: bytes) -> Iterator[HostileHost]:
    """A host that behaves, with one dylib; tests make it worse."""
    with HostileHost(programs=programs) as started:
        plist = system_version(ProductName="Mac OS X", ProductVersion="10.15.7", ProductBuildVersion="19H2026")
        started.add("/System/Library/CoreServices/SystemVersion.plist", File(data=plist))
        started.add("/usr/lib/libgood.dylib", File(data=dylib))
        yield started


def session_of(host: HostileHost, tmp_path: Path) -> SshSession:
    return SshSession(
        SshTarget("127.0.0.1", "admin", host.port),
        trust=HostKeyTrust(host.fingerprint),
        login=Login(host.write_key(tmp_path / "id")),
        timeouts=Timeouts(connect=60, reply=60, attempts=2, backoff=0.01),
    )


def run(host: HostileHost, tmp_path: Path, limits: Limits = _FEW) -> HarvestResult:
    """Harvest the host, and make sure that nothing outside of staging and library was touched."""
    guard = tmp_path / "guard"
    guard.mkdir()
    (guard / "precious").write_text("untouched")
    with Library.open(tmp_path / "library", create=True) as library, session_of(host, tmp_path) as session:
        result = harvest(SshSource(session, limits=limits), library, staging=guard / "staging")
    assert (guard / "precious").read_text() == "untouched"
    assert {p.name for p in guard.iterdir()} <= {"precious", "staging"}
    assert {p.name for p in tmp_path.iterdir()} <= {"guard", "library", "id"}
    for file in (guard / "staging").rglob("*"):
        assert file.resolve().is_relative_to(guard / "staging")
        assert not file.is_symlink()
    for text in [*result.problems, *result.notes]:
        assert text.isprintable(), text
    return result


def refused(result: HarvestResult, *texts: str) -> None:
    assert not result.sealed
    for text in texts:
        assert any(text in p for p in result.problems), (text, result.problems)


def test_a_host_that_behaves_is_sealed(host: HostileHost, tmp_path: Path) -> None:
    result = run(host, tmp_path)
    assert (result.sealed, result.images, result.problems) == (True, 1, [])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"../../../etc/passwd", "is not the name of a file"),
        (b"sub/file", "is not the name of a file"),
        (b"/etc/passwd", "is not the name of a file"),
        (b"a\0b", "is not the name of a file"),
        (b"", "is not the name of a file"),
        (b"line\nbreak", "has control characters"),
        (b"\x1b[31mred\x1b]0;title\x07", "has control characters"),
        ("\x9b31m".encode(), "has control characters"),
        (b"\xff\xfe.dylib", "is not UTF-8"),
        (b"\xed\xa0\x80", "is not UTF-8"),
        (b"x" * 256, "is longer than 255 bytes"),
        (b"y" * 100_000, "is longer than 255 bytes"),
    ],
)
def test_names_that_are_none_are_refused_and_named(
    name: bytes, text: str, host: HostileHost, dylib: bytes, tmp_path: Path
) -> None:
    folder = host.find(b"/usr/lib")
    assert isinstance(folder, Directory)
    folder.children[name] = File(data=dylib)
    result = run(host, tmp_path)
    refused(result, text, "/usr/lib")
    assert result.images == 1  # what stands beside it is harvested all the same


def test_dot_names_do_not_lead_anywhere(host: HostileHost, tmp_path: Path) -> None:
    folder = host.find(b"/usr/lib")
    assert isinstance(folder, Directory)
    folder.children |= {b".": host.root, b"..": host.root}
    assert run(host, tmp_path).sealed


def test_odd_but_possible_names_are_taken(host: HostileHost, dylib: bytes, tmp_path: Path) -> None:
    for name in ("-rf", "a b", "Grüße.dylib", "$(reboot)", "NUL", "con.dylib", "a" * 255):
        host.add(f"/usr/lib/{name}", File(data=dylib))
    result = run(host, tmp_path)
    assert (result.sealed, result.images) == (True, 8)


def test_ten_thousand_levels(host: HostileHost, tmp_path: Path) -> None:
    bottomless = Directory()
    bottomless.listing = lambda: iter([(b"d", bottomless)])
    host.add("/usr/lib/d", bottomless)
    refused(run(host, tmp_path), "lies deeper than 48 folders")


def test_a_folder_that_widens_at_every_level(host: HostileHost, tmp_path: Path) -> None:
    wide = Directory()
    wide.listing = lambda: ((b"%d" % i, wide) for i in range(200))
    host.add("/usr/lib/d", wide)
    refused(run(host, tmp_path), "one folder too many")


def test_long_paths(host: HostileHost, tmp_path: Path) -> None:
    long = Directory()
    long.listing = lambda: iter([(b"d" * 250, long)])
    host.add("/usr/lib/d", long)
    refused(run(host, tmp_path), "longer than macOS allows")


def test_a_listing_without_end(host: HostileHost, tmp_path: Path) -> None:
    endless = Directory()
    endless.listing = lambda: ((b"%d" % i, File()) for i in itertools.count())
    host.add("/usr/lib/d", endless)
    refused(run(host, tmp_path), "holds more than 2000 names")


def test_a_listing_of_nothing_without_end(host: HostileHost, tmp_path: Path) -> None:
    def nothing(kind: int, packet: bytes) -> bytes:
        return struct.pack(">IB", 9, 104) + packet[5:9] + bytes(4) if kind == 12 else packet

    host.reply = nothing
    refused(run(host, tmp_path), "without names and without end")


def test_many_bad_names_take_little_memory(host: HostileHost, tmp_path: Path) -> None:
    big = Directory()
    big.listing = lambda: (((b"%d" % i) * 20_000, File()) for i in range(10_000, 12_000))
    host.add("/usr/lib/d", big)
    with session_of(host, tmp_path) as session:
        source = SshSource(session, limits=_FEW)
        tracemalloc.start()
        try:
            assert source.entries("/usr/lib/d") == []
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 20 << 20  # 200 MB were sent
    assert len(source.problems) <= 1001


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/etc", []),
        (b"../../../../../../etc", []),
        (b"dyld", ["links lead on and on"]),
        (b"a\x1bb", ["is not a path"]),
    ],
)
def test_links_stay_inside_and_end(target: bytes, expected: list[str], host: HostileHost, tmp_path: Path) -> None:
    host.add("/System/Library/dyld", Link(target=target))
    host.add("/usr/lib/link", Link(target=b"/etc/passwd"))
    result = run(host, tmp_path)
    assert result.sealed is not bool(expected)
    if expected:
        refused(result, *expected)
    assert not any(b"etc" in path for path in host.opened)


def test_devices_and_fifos_are_never_opened(host: HostileHost, tmp_path: Path) -> None:
    for kind in (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK):
        host.add(f"/usr/lib/special{kind}", Special(mode=kind | 0o644, size=1 << 20))
    result = run(host, tmp_path)
    assert result.sealed
    assert sum("not read" in n for n in result.notes) == 4
    assert not any(b"special" in path for path in host.opened)


def test_a_file_that_is_another_when_opened(host: HostileHost, dylib: bytes, tmp_path: Path) -> None:
    def to_device(kind: int, packet: bytes) -> bytes:
        return packet.replace(struct.pack(">I", stat.S_IFREG | 0o640), struct.pack(">I", stat.S_IFCHR | 0o640))

    host.add("/usr/lib/libchanged.dylib", File(mode=stat.S_IFREG | 0o640, data=dylib))
    host.reply = lambda kind, packet: to_device(kind, packet) if kind == 8 else packet
    refused(run(host, tmp_path), "libchanged.dylib: is not what was listed")


def test_a_file_that_grows_while_it_is_read(host: HostileHost, dylib: bytes, tmp_path: Path) -> None:
    host.add("/usr/lib/libgrows.dylib", File(data=dylib, later=len(dylib) + 1))
    refused(run(host, tmp_path), "libgrows.dylib")


@pytest.mark.parametrize(
    ("size", "text"),
    [(1 << 62, "more than any file of macOS has"), (1 << 20, "ends after"), (40, "")],
)
def test_a_file_that_lies_about_its_size(size: int, text: str, host: HostileHost, dylib: bytes, tmp_path: Path) -> None:
    host.add("/usr/lib/liblies.dylib", File(size=size, data=dylib))
    refused(run(host, tmp_path), "liblies.dylib", text)


def test_a_file_without_end_costs_no_more_than_it_claims(host: HostileHost, dylib: bytes, tmp_path: Path) -> None:
    asked: list[int] = []

    def endless(offset: int, length: int) -> bytes:
        asked.append(offset + length)
        return (dylib + bytes(1 << 20))[offset : offset + length].ljust(length, b"\0")

    host.add("/usr/lib/libendless.dylib", File(size=len(dylib), data=endless))
    assert run(host, tmp_path).sealed
    assert max(asked) <= len(dylib)


def test_more_mach_o_files_than_any_macos(host: HostileHost, dylib: bytes, tmp_path: Path) -> None:
    for number in range(60):
        host.add(f"/usr/lib/lib{number}.dylib", File(data=dylib))
    refused(run(host, tmp_path), "more than 50 Mach-O files")


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (lambda kind, packet: b"\x7f\xff\xff\xff" + packet if kind == 12 else packet, "SFTP packet of 2147483647"),
        (lambda kind, packet: b"Welcome to this Mac!\n" if kind == 1 else packet, "silence it"),
        (lambda kind, packet: packet[:5] + b"\0\0\xff\xff" + packet[9:] if kind == 11 else packet, "nobody made"),
        (lambda kind, packet: packet[:4] + b"\x69" + packet[5:] if kind == 11 else packet, "instead of"),
        (lambda kind, packet: struct.pack(">I", 9) + packet[4:13] if kind == 12 else packet, "contradicts itself"),
    ],
)
def test_a_server_that_speaks_nonsense_ends_the_harvest(
    reply: Callable[[int, bytes], bytes], text: str, host: HostileHost, tmp_path: Path
) -> None:
    host.reply = reply
    with pytest.raises(RemoteError) as raised:
        run(host, tmp_path)
    assert text in f"{raised.value} {raised.value.hint}"
    assert str(raised.value).isprintable()


def test_more_data_than_was_asked_for(host: HostileHost, dylib: bytes, tmp_path: Path) -> None:
    host.add("/usr/lib/libmore.dylib", File(size=len(dylib), data=lambda offset, length: dylib[:8] + bytes(length)))
    with pytest.raises(RemoteError, match=r"answered \d+ bytes with"):
        run(host, tmp_path)


@pytest.mark.parametrize("kind", [5, 7, 11, 12])
def test_a_server_that_falls_silent_ends_the_harvest(
    kind: int, host: HostileHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Impatient(Sftp):
        """All else may take as long as it takes on a busy machine."""

        def __init__(self, channel: Any, host: str, timeout: float) -> None:
            super().__init__(channel, host, timeout)
            self._timeout = 0.3

    monkeypatch.setattr(session, "Sftp", Impatient)
    host.reply = lambda k, packet: None if k == kind else packet
    with pytest.raises(RemoteError, match="did not answer in time"):
        run(host, tmp_path)


def test_a_server_that_takes_nothing_is_given_up(host: HostileHost, tmp_path: Path) -> None:
    with session_of(host, tmp_path) as session:
        host.connections[0].default_window_size = 0
        session.timeouts = Timeouts(reply=0.5)
        with pytest.raises(RemoteError, match=r"broke off|no channel"):
            session.run(["/usr/bin/sw_vers"], watched=True)


@pytest.mark.parametrize("what", ["check_channel_exec_request", "check_channel_subsystem_request"])
def test_a_server_that_answers_no_request_for_a_program_is_given_up(
    what: str, host: HostileHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = threading.Event()
    monkeypatch.setattr(hostile._Server, what, lambda *_: end.wait(100))
    with session_of(host, tmp_path) as session:
        session.timeouts = Timeouts(reply=2)
        with pytest.raises(RemoteError, match=r"broke off|no SFTP|no channel"):
            if "exec" in what:
                session.run(["/usr/bin/sw_vers"])
            else:
                session.sftp.lstat(b"/")
        end.set()


def test_a_program_that_is_cut_off_has_not_ended(host: HostileHost, tmp_path: Path) -> None:
    def printing() -> Iterator[bytes]:
        yield b"so far\n"
        host.connections[-1].close()

    host.programs = lambda _: (printing(), b"", 0)
    with session_of(host, tmp_path) as session:
        with pytest.raises(ConnectionLostError, match="/usr/bin/sw_vers broke off: connection lost"):
            session.run(["/usr/bin/sw_vers"])
        assert not session.connected


def test_a_connection_that_is_cut_is_lost_at_once(
    host: HostileHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Further ones are for hosts that grant only some channels to each."""

    def cut(*_: object) -> int:
        host.connections[-1].close()
        return int(paramiko.OPEN_SUCCEEDED)

    monkeypatch.setattr(hostile._Server, "check_channel_request", cut)
    session = session_of(host, tmp_path)
    assert not session.connected
    session.connect()
    with session:
        assert session.connected
        with pytest.raises(ConnectionLostError, match="opens no channel") as raised:
            session.run(["/usr/bin/sw_vers"])
        assert not session.connected
        assert len(host.connections) == 1
    assert "run the same command again" in raised.value.hint
    with pytest.raises(ConnectionLostError, match="the connection is lost"):
        session.run(["/usr/bin/sw_vers"])


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (_SW_VERS.replace(b"10.15.7", b"13\x1b]0;pwned\x07"), r"\x1b]0;pwned\x07 for ProductVersion"),
        (_SW_VERS.replace(b"19H2026", b"../../../etc"), "../../../etc for BuildVersion"),
        (_SW_VERS.replace(b"19H2026", b"\xff\xfe"), "for BuildVersion"),
        (_SW_VERS + _SW_VERS, "twice"),
        (b"", "nothing for ProductName"),
        (b"\x1b[2J" + _SW_VERS, "nothing for ProductName"),
        (b"A" * 100_000, "printed more than 4096 bytes"),
    ],
)
def test_what_sw_vers_may_not_say(output: bytes, text: str, host: HostileHost, tmp_path: Path) -> None:
    host.programs = lambda command: (output, b"", 0) if b"sw_vers" in command else programs(command)
    with pytest.raises(RemoteError) as raised:
        run(host, tmp_path)
    assert text in str(raised.value)
    assert str(raised.value).isprintable()


def test_a_program_that_never_stops_printing(host: HostileHost, tmp_path: Path) -> None:
    ended = threading.Event()

    def printing() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 1000
        finally:
            ended.set()

    host.programs = lambda command: (printing(), b"", 0)
    with session_of(host, tmp_path) as session:
        with pytest.raises(RemoteError, match="printed more than"):
            SshSource(session).identity()
        assert ended.wait(20), "it was not told that nobody listens any more"


def test_what_a_program_prints_is_bounded_in_all(host: HostileHost, tmp_path: Path) -> None:
    host.programs = lambda command: (b"1234567890", b"abcde", 0)
    with session_of(host, tmp_path) as session:
        for most in (9, 14):
            with pytest.raises(RemoteError, match=f"/bin/x printed more than {most} bytes"):
                session.run(["/bin/x"], max_output=most)
        output = session.run(["/bin/x"], max_output=15)
        assert (output.stdout, output.stderr, output.status) == (b"1234567890", b"abcde", 0)


def test_builds_that_contradict_each_other(host: HostileHost, tmp_path: Path) -> None:
    host.add("/System/Library/CoreServices/SystemVersion.plist", File(data=system_version(ProductBuildVersion="21A1")))
    with pytest.raises(RemoteError, match="19H2026 by sw_vers, but 21A1"):
        run(host, tmp_path)


@pytest.mark.parametrize(
    "plist",
    [
        b"bplist00" + bytes(100),
        b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a 'aaaa'>]><plist><dict><key>&a;</key></dict></plist>",
        b"<?xml version='1.0'?><plist>" + b"<array>" * 9000,
        b"<?xml version='1.0'?><plist><dict><key>a</key><date>never</date></dict></plist>",
        b"<?xml version='1.0'?><plist><dict><key>a</key><integer>1e9</integer></dict></plist>",
        b"<?xml version='1.0'?><plist><array/></plist>",
    ],
)
def test_property_lists_that_are_none(plist: bytes, host: HostileHost, tmp_path: Path) -> None:
    host.add("/System/Library/CoreServices/SystemVersion.plist", File(data=plist))
    with pytest.raises(SymcacheError) as raised:
        run(host, tmp_path)
    assert "SystemVersion.plist" in str(raised.value)


def test_a_cache_whose_header_names_files_elsewhere(host: HostileHost, tmp_path: Path) -> None:
    head = bytearray(0x4000)
    head[:16] = b"dyld_v1  arm64e\0"
    struct.pack_into("<2I", head, 0x10, 0x200, 1)
    struct.pack_into("<2I", head, 0x188, 0x300, 1)
    head[0x318 : 0x318 + 32] = b"/../../../etc/passwd".ljust(32, b"\0")
    host.add("/System/Library/dyld/dyld_shared_cache_arm64e", File(data=bytes(head)))
    refused(run(host, tmp_path), "dyld_shared_cache_arm64e", "no file name")
    assert not any(b"passwd" in path for path in host.opened)


@pytest.mark.parametrize("content", [b"", b"dyld_v1  arm64e\0", b"dyld_v1  arm64e\0" + b"\xff" * 5000, b"A" * 5000])
def test_caches_that_are_none(content: bytes, host: HostileHost, tmp_path: Path) -> None:
    host.add("/System/Library/dyld/dyld_shared_cache_arm64e", File(data=content))
    refused(run(host, tmp_path), "dyld_shared_cache_arm64e")


def test_a_tool_that_lists_paths_elsewhere(host: HostileHost, tmp_path: Path) -> None:
    """What it prints never becomes a path here, and is shown without its escapes."""
    head = bytearray(0x4000)
    head[:16] = b"dyld_v1  arm64e\0"
    struct.pack_into("<2I", head, 0x10, 0x200, 1)
    host.add("/System/Library/dyld/dyld_shared_cache_arm64e", File(data=bytes(head)))

    def lying(command: bytes) -> tuple[bytes, bytes, int]:
        uuid = b"4C4C4412-5555-3144-A156-E853B4E92AD2"
        if b"-text_info" in command:
            row = b"   0x180004000 -> 0x18000811C  <" + uuid + b">  /../../\x1b[31m/etc/passwd\n"
            return b"dylib text infos (count=1):\n" + row, b"", 0
        if b"-info" in command:
            return b"uuid: n/a\nimage count: 1\nmappings:\n", b"", 0
        if b"dyld_shared_cache_util" in command:
            return b"", b"Usage: dyld_shared_cache_util", 1
        return programs(command)

    host.programs = lying
    refused(run(host, tmp_path), r"\x1b[31m/etc/passwd")


def test_a_banner_is_not_shown(host: HostileHost, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    host.banner = "\x1b]0;owned\x07 Welcome\r\n"
    assert run(host, tmp_path).sealed
    shown = capfd.readouterr()
    assert "Welcome" not in shown.out + shown.err
