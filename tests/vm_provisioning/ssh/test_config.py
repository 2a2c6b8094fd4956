"""What ssh_config(5) says, and hosts that are reached by others: real OpenSSH servers on both sides of a bastion."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from symcache.errors import HostKeyError, RemoteError, UsageError
from symcache_provisioning import HostKeyTrust, Login, SshSession, SshTarget
from symcache_provisioning.machines.checks import Outcome
from symcache_provisioning.machines.doctor import check_machine
from symcache_provisioning.machines.inventory import MachineDefinition
from symcache_provisioning.machines.life_cycle import Machine
from symcache_provisioning.ssh import links
from symcache_provisioning.ssh.config import SshConfig, SshHost
from symcache_provisioning.ssh.links import open_link
from tests.support.openssh import OpenSshServer, keygen, need_openssh
from tests.support.ports import free_port
from tests.support.waiting import until
from tests.vm_provisioning.conftest import QUICK

Connect = Callable[..., SshSession]


HOSTS = "127.0.0.1 localhost mac.inside\n"


@pytest.fixture(scope="module")
def bastion(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSshServer]:
    """A server that logs what it connects to; as root, it alone knows the name mac.inside."""
    need_openssh()
    server = OpenSshServer(tmp_path_factory.mktemp("bastion") / "server", options=["LogLevel DEBUG1"])
    if os.geteuid() == 0:
        server.see("/etc/hosts", HOSTS)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def connect(openssh: OpenSshServer, bastion: OpenSshServer) -> Iterator[Connect]:
    """Return a function that writes ~/.ssh/config, and connects to a host that it names."""
    sessions: list[SshSession] = []
    home = Path.home() / ".ssh"
    home.mkdir(mode=0o700)
    (home / "known_hosts").write_text(openssh.known_hosts_line() + bastion.known_hosts_line())

    def run(config: str, url: str = "ssh://mac", login: Login | None = None, pin: str | None = None) -> SshSession:
        (home / "config").write_text(config + entry("mac", openssh) + entry("bastion", bastion))
        session = SshSession(
            SshTarget.parse(url, SshConfig.for_user()),
            trust=HostKeyTrust.for_user(pin=pin),
            login=login,
            timeouts=QUICK,
        )
        sessions.append(session)
        session.connect()
        assert session.run(["/bin/echo", "hello"]).stdout == b"hello\n"
        return session

    yield run
    for session in sessions:
        session.close()


def entry(name: str, server: OpenSshServer) -> str:
    return f"\nHost {name}\n HostName {server.address}\n Port {server.port}\n IdentityFile {server.identity}\n"


def _logins(server: OpenSshServer) -> int:
    return server.log.read_text().count("Accepted publickey")


def test_a_host_is_what_the_config_says(connect: Connect, openssh: OpenSshServer) -> None:
    session = connect("")
    assert str(session.target) == f"ssh://{openssh.user}@mac:{openssh.port}"


def test_a_jump_goes_by_the_bastion_and_ends_with_the_session(
    connect: Connect, openssh: OpenSshServer, bastion: OpenSshServer
) -> None:
    before = _logins(openssh), _logins(bastion)
    session = connect("Host mac\n ProxyJump bastion\n")
    assert (_logins(openssh), _logins(bastion)) == (before[0] + 1, before[1] + 1)
    assert f"target 127.0.0.1 port {openssh.port}" in bastion.log.read_text()
    ended = bastion.log.read_text().count("do_cleanup")
    session.close()
    until(lambda: bastion.log.read_text().count("do_cleanup") > ended, "the bastion stays connected")


def test_a_host_that_the_bastion_alone_can_find(connect: Connect, openssh: OpenSshServer) -> None:
    if os.geteuid() != 0:
        pytest.skip("a server cannot be given names of its own here, which needs root")
    home = Path.home() / ".ssh"
    line = openssh.known_hosts_line().replace("127.0.0.1", "mac.inside")
    with pytest.raises(RemoteError, match=r"mac\.inside: no such host"):
        connect("Host mac\n HostName mac.inside\n")
    with (home / "known_hosts").open("a") as known:
        known.write(line)
    connect("Host mac\n HostName mac.inside\n ProxyJump bastion\n")


def test_several_jumps_and_a_jump_of_a_jump(connect: Connect, openssh: OpenSshServer, bastion: OpenSshServer) -> None:
    before = _logins(openssh), _logins(bastion)
    connect("Host far\n ProxyJump bastion,mac\n" + entry("far", bastion), "ssh://far")
    assert (_logins(openssh), _logins(bastion)) == (before[0] + 1, before[1] + 2)
    connect("Host far\n ProxyJump mac\nHost mac\n ProxyJump bastion\n" + entry("far", bastion), "ssh://far")
    assert (_logins(openssh), _logins(bastion)) == (before[0] + 2, before[1] + 4)


def test_no_jump_where_none_is_wanted(connect: Connect, bastion: OpenSshServer) -> None:
    before = _logins(bastion)
    for none in ("ProxyJump none", "ProxyCommand none"):
        connect(f"Host mac\n {none}\nHost *\n ProxyJump bastion\n")
    assert _logins(bastion) == before


def test_jumps_in_a_circle_are_named(connect: Connect) -> None:
    with pytest.raises(UsageError, match=r"jumps lead in a circle: mac from bastion from bastion$") as raised:
        connect("Host *\n ProxyJump bastion\n")
    assert "ProxyJump none" in raised.value.hint


def test_the_key_of_a_bastion_must_be_known_whatever_is_pinned(
    connect: Connect, openssh: OpenSshServer, bastion: OpenSshServer
) -> None:
    known = Path.home() / ".ssh/known_hosts"
    jump, before = "Host mac\n ProxyJump bastion\n", _logins(bastion)
    known.write_text(openssh.known_hosts_line())
    for pin in (None, openssh.fingerprint, bastion.fingerprint):
        with pytest.raises(HostKeyError, match=rf"on the way to mac: .*:{bastion.port} is not known here") as raised:
            connect(jump, pin=pin)
        assert "ssh bastion" in raised.value.hint
    kind, key = openssh.known_hosts_line().split()[1:]
    known.write_text(f"{openssh.known_hosts_line()}[127.0.0.1]:{bastion.port} {kind} {key}\n")
    with pytest.raises(HostKeyError, match=r"on the way to mac: .* is not the host we know"):
        connect(jump)
    assert _logins(bastion) == before


def test_the_key_of_the_host_behind_is_that_of_the_host(connect: Connect, bastion: OpenSshServer) -> None:
    (Path.home() / ".ssh/known_hosts").write_text(bastion.known_hosts_line())
    with pytest.raises(HostKeyError, match="is not known here"):
        connect("Host mac\n ProxyJump bastion\n")
    with pytest.raises(HostKeyError, match="not the host that was pinned"):
        connect("Host mac\n ProxyJump bastion\n", pin=bastion.fingerprint)


def test_who_fails_on_the_way_is_named(connect: Connect, openssh: OpenSshServer, bastion: OpenSshServer) -> None:
    with pytest.raises(RemoteError, match="on the way to mac: bastion refused") as raised:
        connect(f"Host mac\n ProxyJump bastion\nHost bastion\n User nobody-{openssh.user}\n")
    assert "ssh bastion" in raised.value.hint
    closed = free_port()
    with pytest.raises(
        RemoteError, match=rf"bastion \(.*\) does not connect to 127\.0\.0\.1 port {closed}: Connect failed"
    ):
        connect(f"Host mac\n Port {closed}\n ProxyJump bastion\n")
    with pytest.raises(RemoteError, match=r"on the way to mac: .* cannot be reached: Connection refused"):
        connect(f"Host mac\n ProxyJump bastion\nHost bastion\n Port {closed}\n")


def test_a_program_that_connects(connect: Connect, bastion: OpenSshServer, tmp_path: Path) -> None:
    before, home = _logins(bastion), Path.home() / ".ssh"
    (tmp_path / "config").write_text(entry("bastion", bastion) + f" UserKnownHostsFile {home}/known_hosts\n")
    session = connect(f"Host mac\n ProxyCommand ssh -F {tmp_path}/config -W %h:%p bastion\n")
    assert _logins(bastion) == before + 1
    ended = bastion.log.read_text().count("do_cleanup")
    session.close()
    until(lambda: bastion.log.read_text().count("do_cleanup") > ended, "ssh was not ended")
    with pytest.raises(RemoteError, match=r"`sh -c .*` gives no connection: no route to mac") as raised:
        connect("Host mac\n ProxyCommand sh -c 'echo no route to mac >&2'\n")
    assert "run that command" in raised.value.hint


@pytest.mark.parametrize(
    ("shell", "command", "said"),
    [
        ("/nonexistent/shell", "true", "No such file or directory: '/nonexistent/shell'"),
        ("/bin/sh", "true", "."),
        ("/bin/sh", "printf 'one\n no route\n' >&2", "no route$"),
    ],
)
def test_a_program_that_does_not_connect_is_named(
    shell: str, command: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELL", shell)
    way = SshHost("mac", "mac", 22, "admin", command=command)
    session = SshSession(
        SshTarget("mac", "admin", way=way), trust=HostKeyTrust(trust_new=True), login=Login(agent=False), timeouts=QUICK
    )
    with pytest.raises(RemoteError, match=f"mac port 22: ProxyCommand `.*` gives no connection: .*{said}"):
        session.connect()


def test_the_config_says_where_a_host_is_known_and_as_what(
    connect: Connect, openssh: OpenSshServer, tmp_path: Path
) -> None:
    known, other = Path.home() / ".ssh/known_hosts", tmp_path / "known"
    files = f"Host mac\n UserKnownHostsFile {tmp_path}/none {other}\n"
    with pytest.raises(HostKeyError, match="is not known here"):
        connect(files)
    known.rename(other)
    connect(files)
    kind, key = openssh.known_hosts_line().split()[1:]
    other.write_text(f"alias {kind} {key}\n")
    with pytest.raises(HostKeyError, match="is not known here"):
        connect(files)
    connect(f"{files} HostKeyAlias alias\n")
    system = Path("/etc/ssh/ssh_known_hosts")
    assert HostKeyTrust.for_user().with_known_hosts((other,)).known_hosts == (other, system)


def test_what_the_url_says_counts_more(connect: Connect, openssh: OpenSshServer) -> None:
    wrong = "Host mac\n User nobody\n Port 1\n IdentityFile none\n"
    session = connect(wrong, f"ssh://{openssh.user}@mac:{openssh.port}/private", Login(openssh.identity))
    assert (session.target.user, session.target.port, session.target.root) == (openssh.user, openssh.port, "/private")


@pytest.mark.parametrize(
    "ends",
    [
        "trap 'rm {lock}; exit' TERM; touch {lock}; while :; do sleep 0.05; done",
        "trap '' TERM; touch {lock}; cat > {lock}; rm {lock}",
    ],
)
def test_a_program_that_connects_is_asked_to_end_and_may_clean_up(ends: str, tmp_path: Path) -> None:
    """By a signal, and by the end of its input."""
    program, lock = tmp_path / "program", tmp_path / "lock"
    program.write_text(ends.format(lock=lock))
    link = open_link(_by(program), 5, connect=_nobody)
    until(lock.exists)
    link.close()
    assert not lock.exists()


def test_a_program_that_connects_is_killed_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_ENDING_SECONDS", 0.1)
    program, pid = tmp_path / "program", tmp_path / "pid"
    program.write_text(f"trap '' TERM; echo $$ > {pid}.part; mv {pid}.part {pid}; while :; do sleep 0.05; done\n")
    link = open_link(_by(program), 5, connect=_nobody)
    until(pid.exists)
    number = int(pid.read_text())
    assert os.getsid(number) == number, "Ctrl-C would end it before the connection"
    link.close()
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


def _by(program: Path) -> SshHost:
    return SshHost("mac", "mac", 22, "admin", command=f"sh {program}")


def _nobody(_: SshHost) -> object:
    pytest.fail("no host is on the way")


CONFIG = """
Include {folder}/more/*.conf
Host mac14
    HostName %h.inside
    User builder
    ProxyJump admin@gate:2222,second
Host *.inside !old.inside
    Port 2200 # the office's
    ProxyCommand nc -X connect -x proxy.inside:3128 %h %p
Match Host *.inside !user "admin"
    HostName matched.inside # by both
Match user ci
    IdentityFile ~/.ssh/ci_%r
Host *
    User everybody
    Port 2201
    IdentityFile ~/.ssh/id_%u
    ProxyJump gate
Host gate second
    ProxyJump none
Host nested
    Include {folder}/within/*.conf
    Port 2299
"""


@pytest.mark.parametrize(
    ("name", "user", "port"),
    [
        *(("mac14", None, None), ("mac14", "ci", 22), ("a.inside", None, None), ("old.inside", None, None)),
        *(("included", None, None), ("after", "ci", None), ("gate", None, None)),
        *(("nested", None, None), ("inner.inside", "ci", None), ("outside", None, None)),
    ],
)
def test_openssh_understands_the_same(
    name: str, user: str | None, port: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The expectation is what `ssh -G` prints."""
    need_openssh()
    monkeypatch.setenv("SYMCACHE_TEST_NAME", "id")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.conf").write_text("Host included\n HostName first.inside\n ProxyCommand none\n")
    (tmp_path / "more" / "b.conf").write_text("Host included\n HostName second.inside\n Port 7\n")
    (tmp_path / "within").mkdir()
    (tmp_path / "within" / "a.conf").write_text(
        "User of_nested\nHost outside *.inside\n User wrong\nHost nest*\n"
        f" IdentityFile ~/.ssh/${{SYMCACHE_TEST_NAME}}_%u\n"
        f"Include {tmp_path}/within/deeper\nMatch all\n HostName nested.address\n"
    )
    (tmp_path / "within" / "deeper").write_text("Port 2298\nMatch user ci\n Port 2297\n")
    file = tmp_path / "config"
    file.write_text(
        CONFIG.format(folder=tmp_path).replace("ProxyJump gate\nHost gate second\n    ProxyJump none\n", "")
    )
    options = [*(["-l", user] if user else []), *(["-p", str(port)] if port else [])]
    printed = subprocess.run(
        ["ssh", "-G", "-F", file, *options, name], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.splitlines()
    said = {line.split(" ", 1)[0]: line.split(" ", 1)[1] for line in printed if not line.startswith("identityfile")}
    files = [line.split(" ", 1)[1] for line in printed if line.startswith("identityfile")]
    host = SshConfig(file).host(name, user=user, port=port)
    assert (host.address, host.user, str(host.port)) == (said["hostname"], said["user"], said["port"])
    # ssh prints these before it replaces what they hold.
    replaced = [os.path.expandvars(f).replace("%u", getpass.getuser()).replace("%r", host.user) for f in files]
    assert list(map(str, host.identities)) == [str(Path(f).expanduser()) for f in replaced]
    command = said.get("proxycommand", "none").replace("%h", host.address).replace("%p", str(host.port))
    assert (host.command or "none") == command
    jumps: list[SshHost] = []
    while host.jump is not None:
        host = host.jump
        jumps.insert(0, host)
    assert [j.name for j in jumps] == [
        j.rpartition("@")[2].partition(":")[0] for j in said.get("proxyjump", "").split(",") if j
    ]


def _host(tmp_path: Path, text: str, user: str | None = None, port: int | None = None) -> SshHost:
    (tmp_path / "config").write_text(f"Host mac\n{text}\n")
    return SshConfig(tmp_path / "config").host("mac", user=user, port=port)


def test_hosts_that_are_named_to_jump_from_are_the_whole_way(tmp_path: Path) -> None:
    first = "Host first\n ProxyCommand nc %h %p\n"
    host = _host(tmp_path, f" ProxyJump first,me@second:2200\nHost second\n ProxyJump other\n{first}")
    assert host.jump is not None
    assert (host.jump.name, host.jump.user, host.jump.port, host.jump.command) == ("second", "me", 2200, "")
    assert host.jump.jump is not None
    assert (host.jump.jump.name, host.jump.jump.jump, host.jump.jump.command) == ("first", None, "nc first 22")


def test_of_a_jump_and_a_program_the_first_counts(tmp_path: Path) -> None:
    host = _host(tmp_path, " ProxyJump gate\n ProxyCommand nc %h %p")
    assert host.jump is not None
    assert (host.jump.name, host.command, host.is_direct) == ("gate", "", False)
    host = _host(tmp_path, " ProxyCommand nc %h %p %r # no comment\n ProxyJump gate", "zoe", 2022)
    assert (host.jump, host.command, host.is_direct) == (None, "nc mac 2022 zoe # no comment", False)
    assert _host(tmp_path, " ProxyCommand none\n ProxyJump gate").is_direct
    assert _host(tmp_path, "").is_direct


def test_blocks_end_with_their_files(tmp_path: Path) -> None:
    more, other = tmp_path / "more", tmp_path / "other"
    more.write_text("Port 7\nMatch tagged vpn\n User nobody\nHost other\n User nobody\n")
    other.write_text("Host mac\n User nobody\n")
    host = _host(
        tmp_path, f" Include {more}\n IdentityAgent none\nMatch tagged vpn\n Include {other}\nHost *\n User zoe"
    )
    assert (host.port, host.agent, host.user) == (7, "none", "zoe")
    other.write_text("User somebody\n")
    host = SshConfig(more, other).host("mac")
    assert (host.port, host.user) == (7, "somebody")


def test_tokens_stand_for_what_ssh_config_says(tmp_path: Path) -> None:
    home, user, name = Path.home(), getpass.getuser(), socket.gethostname().partition(".")[0]
    host = _host(
        tmp_path,
        " HostName mac.inside\n Port 2200\n User zoe\n IdentityAgent ~/agent\n UserKnownHostsFile none\n"
        " IdentityFile %d/%L-%u-%%-%h-%p-%r-%n-%x-${SYMCACHE_TEST_UNSET}",
    )
    expected = home / f"{name}-{user}-%-mac.inside-2200-zoe-mac-%x-${{SYMCACHE_TEST_UNSET}}"
    assert (host.identities, host.agent, host.known_hosts) == ((expected,), str(home / "agent"), ())
    host = _host(tmp_path, " IdentityFile none\n IdentityAgent none")
    assert (host.identities, host.agent, host.known_hosts) == ((), "none", None)
    host = _host(tmp_path, "")
    assert (host.agent, host.port, host.user) == ("SSH_AUTH_SOCK", 22, user)


@pytest.mark.parametrize(
    ("port", "alias", "known", "where"),
    [
        (22, "", "mac.inside", "mac (mac.inside port 22)"),
        (23, "", "[mac.inside]:23", "mac (mac.inside port 23)"),
        (2200, "office", "office", "mac (mac.inside port 2200)"),
    ],
)
def test_a_host_is_called_as_ssh_calls_it(port: int, alias: str, known: str, where: str) -> None:
    host = SshHost("mac", "mac.inside", port, "admin", key_alias=alias)
    assert (host.known_as, host.where) == (known, where)
    assert SshHost("mac", "mac", port, "admin").where == f"mac port {port}"


def test_files_of_others_and_endless_ones_are_refused(tmp_path: Path) -> None:
    file, folder = tmp_path / "config", tmp_path / "more"
    file.write_text("Port 7\n")
    for mode, mine in ((0o755, True), (0o620, False), (0o602, False)):
        file.chmod(mode)
        with nullcontext() if mine else pytest.raises(UsageError, match="others may write it"):
            assert SshConfig(file).host("mac").port == 7
    file.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(file, 1, -1)
        with pytest.raises(UsageError, match="others may write it"):
            SshConfig(file)
        os.chown(file, 0, -1)
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        SshConfig(tmp_path)
    file.write_text("#" * ((1 << 20) - 7) + "\nPort 7")
    assert SshConfig(file).host("mac").port == 7
    file.write_text("#" * (1 << 20) + "\nPort 7")
    with pytest.raises(UsageError, match="more than ssh would read"):
        SshConfig(file)
    folder.mkdir()
    file.write_text(f"Include {folder}/*\n")
    for count, fine in ((200, True), (300, False)):
        for number in range(count):
            (folder / str(number)).write_text("Port 7\n")
        with nullcontext() if fine else pytest.raises(UsageError, match="more than ssh would read"):
            assert SshConfig(file).host("mac").port == 7
    for number in range(20):
        (folder / str(number)).write_text(f"Include {folder}/{number + 1}\n")
    file.write_text(f"Include {folder}/0\n")
    with pytest.raises(UsageError, match="more than ssh would read"):
        SshConfig(file)


def test_criteria_that_nobody_here_knows_match_nothing(tmp_path: Path) -> None:
    file = tmp_path / "config"
    for criteria in ("localnetwork 192.0.2.0/24", "host mac tagged vpn", "!sessiontype exec", "host"):
        file.write_text(f"Match {criteria}\n User nobody\nMatch all\n User somebody\n")
        assert SshConfig(file).host("mac").user == "somebody"


def test_what_is_no_config_is_named(tmp_path: Path) -> None:
    file = tmp_path / "config"
    for text, wrong in (
        ("Host mac\n Port many\n", "Port of mac: many"),
        ("Host mac\n Port 0\n", "Port of mac: 0"),
        ("Host mac\n Port 65536\n", "Port of mac: 65536"),
        ("Host mac\n ProxyJump a:b:c\n", "ProxyJump of mac: a:b:c"),
        ("Match host\n  'mac\nHost mac\n", "cannot be understood"),
        ("Host 'mac\n", "No closing quotation"),
        ("CanonicalizeHostname yes\n", "cannot be understood"),
        ("Match exec 'false\n", "No closing quotation"),
        (f"Include {file}\n", "more than ssh would read"),
    ):
        file.write_text(text)
        with pytest.raises(UsageError, match=wrong) as raised:
            SshConfig(file).host("mac")
        assert str(file) in str(raised.value)
    for port in (1, 65535):
        file.write_text(f"Port {port}\n")
        assert SshConfig(file).host("mac").port == port


def test_the_agent_that_the_config_names_offers_the_keys_that_it_names(
    connect: Connect, openssh: OpenSshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", agent], stdout=subprocess.DEVNULL)
    try:
        until(agent.exists, "ssh-agent does not start")
        names = [f"other{n}" for n in range(6)]  # more than sshd lets us try
        for name in names:
            keygen("-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name))
        keys = [*(str(tmp_path / name) for name in names), str(openssh.identity)]
        subprocess.run(["ssh-add", "-q", *keys], env=os.environ | {"SSH_AUTH_SOCK": str(agent)}, check=True)
        public = tmp_path / "mine.pub"
        shutil.copy(openssh.identity.with_suffix(".pub"), public)
        # As many have it: the private key is in the agent alone, and the public one says which.
        mine = f"Host elsewhere\n HostName 127.0.0.1\n Port {openssh.port}\n IdentityAgent {agent}\n"
        connect(f"{mine} IdentityFile {tmp_path}/mine\n", "ssh://elsewhere")
        monkeypatch.setenv("OTHER_AGENT", str(agent))
        connect(mine.replace(str(agent), "$OTHER_AGENT") + f" IdentityFile {tmp_path}/mine\n", "ssh://elsewhere")
        connect(f"{mine} IdentityFile {public}\n IdentitiesOnly yes\n", "ssh://elsewhere")
        shutil.copy(openssh.identity, tmp_path / "alone")
        connect(f"{mine} IdentityFile {tmp_path}/alone\n IdentitiesOnly yes\n", "ssh://elsewhere")
        with pytest.raises(RemoteError, match=r"refused .*: it did not accept a key of your agent$"):
            connect(f"{mine} IdentityFile {tmp_path}/other1\n IdentitiesOnly yes\n", "ssh://elsewhere")
        with pytest.raises(RemoteError, match="refused"):
            connect(mine.replace(str(agent), "none"), "ssh://elsewhere")
        environment = os.environ | {"SSH_AUTH_SOCK": str(agent)}
        subprocess.run(["ssh-add", "-q", "-d", openssh.identity], env=environment, check=True)
        connect(f"{mine} IdentityFile {openssh.identity}\n", "ssh://elsewhere")  # before all that the agent has
    finally:
        process.terminate()
        process.wait(60)


def test_certificates_of_users(connect: Connect, openssh: OpenSshServer, tmp_path: Path) -> None:
    authority, key = tmp_path / "ca", tmp_path / "key"
    for file in (authority, key):
        keygen("-q", "-t", "ed25519", "-N", "", "-f", str(file))
    server = OpenSshServer(tmp_path / "server", options=[f"TrustedUserCAKeys {authority}.pub"])
    (server.folder / "authorized_keys").write_text("")
    keygen("-q", "-s", str(authority), "-I", "me", "-n", server.user, f"{key}.pub")
    server.start()
    try:
        with (Path.home() / ".ssh/known_hosts").open("a") as known:
            known.write(server.known_hosts_line())
        host = f"Host cert\n HostName 127.0.0.1\n Port {server.port}\n"
        connect(f"{host} IdentityFile {key}\n", "ssh://cert")
        connect(host, "ssh://cert", Login(key))
        plain = tmp_path / "plain"  # with a certificate, which counts for nothing at the other server
        shutil.copy(openssh.identity, plain)
        shutil.copy(openssh.identity.with_suffix(".pub"), f"{plain}.pub")
        keygen("-q", "-s", str(authority), "-I", "me", "-n", server.user, f"{plain}.pub")
        connect("", "ssh://mac", Login(plain))
        elsewhere = tmp_path / "elsewhere.pub"
        (tmp_path / "key-cert.pub").rename(elsewhere)
        with pytest.raises(RemoteError, match="refused"):
            connect(f"{host} IdentityFile {key}\n", "ssh://cert")
        connect(f"{host} IdentityFile {key}\n CertificateFile {elsewhere}\n", "ssh://cert")
        connect(f"Host mac\n CertificateFile {elsewhere}\n")  # which is of another key
    finally:
        server.stop()


def test_the_inventory_counts_more_than_the_config(openssh: OpenSshServer, bastion: OpenSshServer) -> None:
    home = Path.home() / ".ssh"
    home.mkdir(mode=0o700)
    config = (
        f"Host mac\n HostName inside.example\n User said\n Port 2222\n ProxyJump bastion\n{entry('bastion', bastion)}"
    )
    (home / "config").write_text(config)
    table = {"name": "m", "driver": "static", "host": "mac"}
    target = Machine(MachineDefinition.model_validate(table)).target()
    assert (target.user, target.port, target.ssh_host.address) == ("said", 2222, "inside.example")
    assert target.ssh_host.jump is not None
    target = Machine(MachineDefinition.model_validate(table | {"user": "admin", "port": 22})).target()
    assert (target.user, target.port, target.ssh_host.port) == ("admin", 22, 22)
    (home / "config").unlink()
    assert Machine(MachineDefinition.model_validate(table)).target().user == "admin"


def test_doctor_sees_a_machine_behind_a_bastion(openssh: OpenSshServer, bastion: OpenSshServer) -> None:
    home = Path.home() / ".ssh"
    home.mkdir(mode=0o700)
    config = entry("mac", openssh) + " ProxyJump bastion\n" + entry("bastion", bastion)
    (home / "config").write_text(config)
    (home / "known_hosts").write_text(openssh.known_hosts_line() + bastion.known_hosts_line())
    table = {"name": "m", "driver": "static", "host": "mac", "user": openssh.user, "host_key": openssh.fingerprint}
    machine, before = Machine(MachineDefinition.model_validate(table), timeouts=QUICK), _logins(bastion)
    checks = {check.name: check for check in check_machine(machine)}
    assert checks["remote login"].text.endswith("answers, reached by bastion")
    assert (checks["host key"].outcome, checks["login"].outcome) == (Outcome.OK, Outcome.OK)
    assert _logins(bastion) == before + 1
    (home / "known_hosts").write_text(openssh.known_hosts_line())
    (check,) = (check for check in check_machine(machine) if check.failed)
    assert check.name == "host key"
    assert "on the way to mac: " in check.text
    assert "ssh bastion" in check.hint


def test_a_harvest_goes_by_the_bastion(openssh: OpenSshServer, bastion: OpenSshServer, tmp_path: Path) -> None:
    home = Path.home() / ".ssh"
    home.mkdir(mode=0o700)
    (home / "config").write_text(entry("mac", openssh) + " ProxyJump bastion\n" + entry("bastion", bastion))
    (home / "known_hosts").write_text(openssh.known_hosts_line() + bastion.known_hosts_line())
    (tmp_path / "root").mkdir()
    before = _logins(bastion)
    ran = subprocess.run(
        [sys.executable, "-m", "symcache", "harvest", f"ssh://mac{tmp_path}/root"],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert f"ssh://{openssh.user}@mac:{openssh.port}{tmp_path}/root: is not the root of a macOS system" in " ".join(
        ran.stderr.split()
    )
    assert _logins(bastion) == before + 1
