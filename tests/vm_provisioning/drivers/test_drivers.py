"""Drivers against stand-ins for their programs, and against the real virsh, qemu-img and QEMU."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from symcache.errors import EnvironmentFailure, RemoteError, UsageError
from symcache_provisioning.drivers import DRIVERS, Child, Driver, Endpoint, MachineState, ProgramError, make_driver
from symcache_provisioning.drivers import protocol as protocol_module
from symcache_provisioning.drivers.programs import Program, process_start
from symcache_provisioning.drivers.protocol import first_address
from symcache_provisioning.drivers.qmp import Qmp
from symcache_provisioning.interrupts import Interrupted, Interrupts, defer_interrupts
from tests.support.waiting import until
from tests.vm_provisioning.stand_ins import StandIns

RUN = "symcache-mac-0a1b2c"
BY_STAND_IN = ["tart", "anka", "parallels", "vmware", "utm"]


@pytest.fixture
def guests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    found = StandIns(tmp_path / "stand-ins")
    monkeypatch.setenv("PATH", f"{found.bin}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(protocol_module, "_POLL", 0.05)
    return found


def driver_of(name: str, tmp_path: Path, **options: Any) -> Driver[Any]:
    if name == "vmware":
        options.setdefault("folder", str(tmp_path / "machines"))
    if name == "parallels":
        options.setdefault("leases", str(tmp_path / "leases"))
    return make_driver(name, DRIVERS[name].options_type.model_validate(options), tmp_path / "drivers")


def image_of(name: str, guests: StandIns, tmp_path: Path) -> str:
    """Add the machine that is cloned from, as its driver names it."""
    image = "mac"
    if name == "vmware":
        vmx = tmp_path / "Mac OS.vmwarevm/Mac OS.vmx"
        vmx.parent.mkdir()
        vmx.write_text("config.version = 8\n")
        image = str(vmx)
    guests.add(image)
    return image


@pytest.mark.parametrize("name", BY_STAND_IN)
def test_a_machine_lives_from_clone_to_destruction(name: str, guests: StandIns, tmp_path: Path) -> None:
    driver, image = driver_of(name, tmp_path), image_of(name, guests, tmp_path)
    late = {"tart": "tart ip", "anka": "anka show", "parallels": "prlctl list", "vmware": "vmrun getGuestIPAddress"}
    guests.fault(late.get(name, "utmctl ip-address"), ip_after=2, tools_after=1)
    assert driver.state(RUN) is MachineState.MISSING
    assert driver.is_local(image)
    driver.clone(image, RUN)
    assert driver.state(RUN) is MachineState.STOPPED
    child = driver.start(RUN, tmp_path / "log")
    assert (child is not None) == driver.capabilities.child_process
    try:
        endpoint = driver.endpoint(RUN, 120, child)
        assert endpoint.port == 22
        assert endpoint.host in {"192.168.64.7", "192.168.64.9", "10.211.55.5", "172.16.12.5", "192.168.64.11"}
        assert driver.state(RUN) is MachineState.RUNNING
        assert (RUN, MachineState.RUNNING) in list(driver.list())
        driver.stop(RUN, 5)
        assert driver.state(RUN) is MachineState.STOPPED
    finally:
        if child:
            child.end()
    driver.destroy(RUN)
    assert driver.state(RUN) is MachineState.MISSING
    driver.destroy(RUN)  # nobody minds
    driver.stop(RUN, 1)
    assert driver.state(image) is MachineState.STOPPED, "the image itself is left alone"


@pytest.mark.parametrize("name", BY_STAND_IN)
def test_an_address_that_never_comes_is_given_up(name: str, guests: StandIns, tmp_path: Path) -> None:
    driver, image = driver_of(name, tmp_path), image_of(name, guests, tmp_path)
    for verb in ("tart ip", "anka show", "prlctl list", "vmrun getGuestIPAddress", "utmctl ip-address"):
        guests.fault(verb, ip_after=10_000)
    driver.clone(image, RUN)
    child = driver.start(RUN, tmp_path / "log")
    try:
        with pytest.raises(RemoteError, match=f"{RUN} got no network address within") as raised:
            driver.endpoint(RUN, 0.4, child)
        assert "boot_timeout" in raised.value.hint
    finally:
        driver.stop(RUN, 1)
        if child:
            child.end()


@pytest.mark.parametrize("name", BY_STAND_IN)
def test_a_missing_image_is_named(name: str, guests: StandIns, tmp_path: Path) -> None:
    driver = driver_of(name, tmp_path)
    image = str(tmp_path / "nope.vmx") if name == "vmware" else "nope"
    assert not driver.is_local(image)
    with pytest.raises(ProgramError) as raised:
        driver.clone(image, RUN)
    said = str(raised.value)
    assert f"clone {image if name == 'vmware' else RUN} ended with" in said
    assert any(w in said.lower() for w in ("does not exist", "not found", "could not be found", "cannot be found"))
    assert raised.value.hint


@pytest.mark.parametrize(
    ("name", "verb"),
    [("anka", "anka start"), ("parallels", "prlctl start"), ("vmware", "vmrun start"), ("utm", "utmctl start")],
)
def test_a_start_that_hangs_is_ended(
    name: str, verb: str, guests: StandIns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, image = driver_of(name, tmp_path), image_of(name, guests, tmp_path)
    driver.clone(image, RUN)
    guests.fault(verb, hang=True)
    whole = Program.run

    def impatient(self: Program, verb: str, *arguments: str, **options: Any) -> Any:
        options["timeout"] = 0.5 if verb == "start" else options.get("timeout", 60)
        return whole(self, verb, *arguments, **options)

    monkeypatch.setattr(Program, "run", impatient)
    with pytest.raises(ProgramError, match=rf"start {RUN} did not finish within 0\.5 s") as raised:
        driver.start(RUN, tmp_path / "log")
    assert raised.value.status is None


def test_tart_tells_why_a_third_machine_does_not_start(guests: StandIns, tmp_path: Path) -> None:
    driver = driver_of("tart", tmp_path)
    for name in ("one", "two"):
        guests.add(name, state="running")
    guests.add("linux", state="running", os="linux")
    guests.add(RUN)
    assert sorted(driver.running_guests()) == ["one", "two"], "Linux guests do not count"
    child = driver.start(RUN, tmp_path / "log")
    with pytest.raises(EnvironmentFailure, match=r"exceeds the system limit \(other running VMs: one, two") as raised:
        driver.endpoint(RUN, 120, child)
    assert "two guests run at a time" in raised.value.hint
    assert not child or not child.alive()


def test_tart_is_told_how_to_run(guests: StandIns, tmp_path: Path) -> None:
    driver = driver_of("tart", tmp_path, network="bridged:en0", resolver="arp", cpu=6, memory=8192, disk=80)
    driver.create("new", "/tmp/UniversalMac.ipsw")
    assert guests.machines["new"]["ipsw"] == "/tmp/UniversalMac.ipsw"
    driver.clone("new", RUN)
    assert guests.machines[RUN]["settings"] == ["--cpu", "6", "--memory", "8192"]
    child = driver.start(RUN, tmp_path / "log")
    try:
        driver.endpoint(RUN, 120, child)
    finally:
        driver.stop(RUN, 2)
        if child:
            child.end()
    assert ["tart", "run", "--no-graphics", "--net-bridged=en0", RUN] in guests.calls()
    assert ["tart", "ip", "--resolver", "arp", RUN] in guests.calls()


def test_programs_run_in_the_guest_without_the_network(guests: StandIns, tmp_path: Path) -> None:
    argv = ["/bin/cat", "/etc/ssh/ssh_host_ed25519_key.pub"]
    guests.add(RUN, state="running", host_key="ssh-ed25519 AAAA root@mac")
    for name in ("tart", "anka", "parallels"):
        assert driver_of(name, tmp_path).exec_out_of_band(RUN, argv).strip() == "ssh-ed25519 AAAA root@mac"
    guests.fault("tart exec", agent_after=5)
    with pytest.raises(ProgramError, match="is the Tart Guest Agent running") as raised:
        driver_of("tart", tmp_path).exec_out_of_band(RUN, argv)
    assert raised.value.status == 1
    for name in ("vmware", "utm", "libvirt", "qemu", "static"):
        assert not DRIVERS[name].capabilities.out_of_band


def test_anka_says_no_with_exit_code_and_words(guests: StandIns, tmp_path: Path) -> None:
    driver = driver_of("anka", tmp_path, tag="v3")
    guests.add("mac", state="running")
    guests.fault("anka clone", fail="VM is running")
    with pytest.raises(ProgramError, match=f"anka clone {RUN} ended with 3: VM is running"):
        driver.clone("mac", RUN)
    guests.fault("anka clone", fail="out of memory", code="many")
    with pytest.raises(ProgramError, match="out of memory"):
        driver.clone("mac", RUN)
    guests.fault("anka clone")
    driver.clone("mac", RUN)
    assert guests.machines[RUN]["tag"] == "v3"
    driver.start(RUN, tmp_path / "log")
    guests.fault("anka stop", fail="guest does not respond", unless="-f")
    driver.stop(RUN, 5)
    assert guests.machines[RUN]["forced"] is True


def test_parallels_copies_what_it_cannot_link(guests: StandIns, tmp_path: Path) -> None:
    guests.add("mac")
    guests.fault("prlctl clone", fail="Unable to clone: linked clones are not supported", only="--linked")
    with pytest.raises(ProgramError, match="linked clones are not supported"):
        driver_of("parallels", tmp_path, clone="linked").clone("mac", RUN)
    driver_of("parallels", tmp_path).clone("mac", RUN)
    assert guests.machines[RUN]["linked"] is False


def test_parallels_finds_addresses_among_its_leases(guests: StandIns, tmp_path: Path) -> None:
    guests.add(RUN, state="running", mac="001c42000001", ip="-")
    (tmp_path / "leases").write_text(
        '[vnic0]\n10.211.55.3="1700000000,1800,001c42000001,01001c42000001"\n'
        '10.211.55.9="1700009999,1800,001c42000001,01001c42000001"\n10.211.55.4="1700099999,1800,001c42ffffff,x"\n'
    )
    assert driver_of("parallels", tmp_path).address(RUN) == Endpoint("10.211.55.9", 22)


@pytest.mark.parametrize(("name", "verb"), [("parallels", "prlctl stop"), ("vmware", "vmrun stop")])
def test_a_guest_that_does_not_stop_is_made_to(name: str, verb: str, guests: StandIns, tmp_path: Path) -> None:
    driver, image = driver_of(name, tmp_path), image_of(name, guests, tmp_path)
    driver.clone(image, RUN)
    driver.start(RUN, tmp_path / "log")
    guests.fault(verb, hangs_unless_killed=True)
    driver.stop(RUN, 1)
    assert driver.state(RUN) is MachineState.STOPPED


def test_utm_fails_on_stderr_whatever_its_exit_code(guests: StandIns, tmp_path: Path) -> None:
    driver = driver_of("utm", tmp_path)
    guests.add("mac")
    driver.clone("mac", RUN)
    guests.fault("utmctl start", quiet_failure="Error from event: Not authorized to send Apple events to UTM.")
    with pytest.raises(ProgramError, match=f"utmctl start {RUN} ended with 0: Error from event: Not authorized"):
        driver.start(RUN, tmp_path / "log")
    guests.fault("utmctl ip-address", quiet_failure="Operation not supported by the backend.")
    with pytest.raises(ProgramError) as raised:
        driver.address(RUN)
    assert "update UTM" in raised.value.hint
    guests.fault("utmctl start")
    driver.start(RUN, tmp_path / "log")
    guests.fault("utmctl stop", deaf=True)
    driver.stop(RUN, 0.2)
    assert guests.machines[RUN]["how"] == ["--kill"]


def test_a_clone_of_vmware_that_was_broken_off_is_removed(guests: StandIns, tmp_path: Path) -> None:
    driver = driver_of("vmware", tmp_path, snapshot="clean")
    driver.clone(image_of("vmware", guests, tmp_path), RUN)
    (clone,) = [m for name, m in guests.machines.items() if RUN in name]
    assert (clone["kind"], clone["options"]) == ("linked", ["-snapshot=clean", f"-cloneName={RUN}"])
    (tmp_path / "machines" / f"{RUN}.vmwarevm" / f"{RUN}.vmx").unlink()
    driver.destroy(RUN)
    assert not (tmp_path / "machines" / f"{RUN}.vmwarevm").exists()


@pytest.mark.parametrize(
    ("output", "why"), [("", "no JSON"), ("{}", "no list of machines"), ('[{"Name": 1}]', "no list of machines")]
)
def test_nonsense_is_not_taken_for_an_answer(output: str, why: str, guests: StandIns, tmp_path: Path) -> None:
    guests.fault("tart list", nonsense=output)
    with pytest.raises(ProgramError, match=why):
        driver_of("tart", tmp_path).list()


@pytest.mark.parametrize("name", [n for n in DRIVERS if n != "static"])
def test_a_program_that_is_not_installed_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentFailure, match="is not installed") as raised:
        DRIVERS[name].programs[0].find()
    assert "install" in raised.value.hint


def test_what_a_driver_cannot_do_is_refused_clearly(tmp_path: Path) -> None:
    for name in ("parallels", "vmware", "utm", "libvirt", "qemu", "static"):
        options = {"arguments": ["{disk}"]} if name == "qemu" else {}
        with pytest.raises(UsageError, match=f"driver {name} cannot create machines from an IPSW") as raised:
            driver_of(name, tmp_path, **options).create("x", "latest")
        assert "tart and anka" in raised.value.hint
    with pytest.raises(UsageError, match="driver static cannot start"):
        driver_of("static", tmp_path).start("x", tmp_path / "log")


# Programs as such


def script(folder: Path, text: str) -> Program:
    path = folder / "drive"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return Program(str(path), hint="make it")


def test_output_is_bounded(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="printed more than"):
        script(tmp_path, "while :; do printf '%01000d' 1; done").run("list")


def test_a_program_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    program = script(tmp_path, f"sleep 321 & echo $! >{noted}.part; mv {noted}.part {noted}; wait")
    for seconds in (0.5, 5, 50):  # a busy machine may not even have started it
        with pytest.raises(ProgramError, match=rf"list mac did not finish within {seconds:g} s"):
            program.run("list", machine="mac", timeout=seconds)
        if noted.exists():
            break
    pid = int(noted.read_text())
    until(lambda: not process_start(pid), "its child still runs")


def test_a_program_that_leaves_a_daemon_behind_has_ended(tmp_path: Path) -> None:
    program = script(tmp_path, f"sleep 600 & echo $! >{tmp_path}/pid; echo done")
    try:
        assert program.run("start").stdout == "done\n"
    finally:
        os.kill(int((tmp_path / "pid").read_text()), 9)


def test_failures_are_shown_on_one_line_without_escapes(tmp_path: Path) -> None:
    program = script(tmp_path, r"printf '\033[31mbad\007 thing\nsecond\n' >&2; exit 7")
    with pytest.raises(ProgramError) as raised:
        program.run("list", machine="mac")
    assert str(raised.value).endswith("list mac ended with 7: \\x1b[31mbad\\x07 thing")
    assert raised.value.status == 7


def test_a_child_is_told_from_a_later_process_of_its_number(tmp_path: Path) -> None:
    child = script(tmp_path, "echo hello; exec sleep 30").spawn(log=tmp_path / "log")
    assert child.alive()
    assert not Child(child.pid, "another time", child.log).alive()
    assert not Child(2**22 + 1, "", child.log).alive(), "one that ended at once"
    until(child.last_output)
    child.end()
    assert not child.alive()
    assert child.last_output() == "hello"


def test_a_signal_waits_for_what_must_not_be_torn_apart() -> None:
    before, done = signal.getsignal(signal.SIGTERM), False
    with pytest.raises(Interrupted), Interrupts(), defer_interrupts():
        os.kill(os.getpid(), signal.SIGTERM)
        done = True
    assert done
    with Interrupts(), defer_interrupts(forget=True):
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_was_swallowed_ends_the_next_program(tmp_path: Path) -> None:
    program = script(tmp_path, "sleep 30")
    with pytest.raises(Interrupted), Interrupts():
        with contextlib.suppress(Interrupted):  # as Python does within finalizers
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        program.run("list")
    assert script(tmp_path, "echo done").run("list").stdout == "done\n", "it is forgotten afterwards"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (" vnet0 52:54:00:12:34:56 ipv4 192.168.122.3/24\n", "192.168.122.3"),
        ("fe80::1\n192.168.64.11\n", "192.168.64.11"),
        ("fdb2:2c26:f4e4:0:21c:42ff:feaa:bbcc", "fdb2:2c26:f4e4:0:21c:42ff:feaa:bbcc"),
        ("127.0.0.1\n169.254.1.1\n0.0.0.0", None),
        ("unknown", None),
        ("-", None),
        ("999.1.1.1 -oProxyCommand=x", None),
    ],
)
def test_the_first_address_that_can_be_reached(text: str, address: str | None) -> None:
    assert first_address(text) == address


# The real virsh, on libvirt's own test driver: every call sees the machines of the file anew


def need(*programs: str) -> None:
    packages = {"virsh": "libvirt-clients", "qemu-img": "qemu-utils", "qemu-system-x86_64": "qemu-system-x86"}
    missing = [p for p in programs if not shutil.which(p)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (apt-get install {' '.join(packages[p] for p in missing)})")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Driver[Any]]:
    """A libvirt with one machine that is shut off, and one that runs."""
    need("virsh")
    node = tmp_path / "node.xml"
    disk = (
        "<disk type='file' device='disk'><driver type='qcow2'/>"
        f"<source file='{tmp_path}/base.qcow2'/><target dev='sda'/></disk>"
    )
    cdrom = "<disk type='file' device='cdrom'><source file='/nope.iso'/><target dev='sdb'/><readonly/></disk>"
    card = "<interface type='network'><source network='default'/><mac address='52:54:00:12:34:56'/></interface>"

    def domain(name: str, more: str) -> str:
        return (
            "<domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>"
            f"<name>{name}</name><memory>65536</memory><os><type>hvm</type></os>"
            f"<devices>{disk}{cdrom}{card}</devices>{more}</domain>"
        )

    node.write_text(
        f"<node>{domain('mac', '<test:runstate>5</test:runstate>')}{domain(RUN, '')}"
        "<network><name>default</name><bridge name='virbr0'/><ip address='192.168.122.1' netmask='255.255.255.0'>"
        "<dhcp><range start='192.168.122.2' end='192.168.122.254'/></dhcp></ip></network></node>"
    )
    yield driver_of("libvirt", tmp_path, uri=f"test://{node}")


def test_the_real_virsh_tells_machines_and_addresses(host: Driver[Any]) -> None:
    assert sorted(host.list()) == [("mac", MachineState.STOPPED), (RUN, MachineState.RUNNING)]
    assert [host.state(m) for m in ("mac", RUN, "nope")] == [
        MachineState.STOPPED,
        MachineState.RUNNING,
        MachineState.MISSING,
    ]
    endpoint = host.endpoint(RUN, 120)
    assert (endpoint.host.startswith("192.168.122."), endpoint.port) == (True, 22)
    assert host.start("mac", Path("/dev/null")) is None
    with pytest.raises(ProgramError, match=f"virsh start {RUN} ended with 1: error: Domain is already active"):
        host.start(RUN, Path("/dev/null"))
    with pytest.raises(ProgramError, match="virsh domifaddr mac ended with 1: error: Failed to query for interfaces"):
        host.address("mac")
    with pytest.raises(UsageError, match="only a machine that is shut off can be cloned"):
        host.clone(RUN, "symcache-x")


def test_a_machine_of_the_real_virsh_that_does_not_shut_down_is_made_to(
    host: Driver[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each virsh has a libvirt of its own here, so the shutdown of one is not seen by the next.
    before = Program.run
    verbs = []

    def listening(self: Program, verb: str, *arguments: str, **options: Any) -> Any:
        verbs.append(verb)
        return before(self, verb, *arguments, **options)

    monkeypatch.setattr(Program, "run", listening)
    host.stop(RUN, 0.1)
    assert [v for v in verbs if v != "domstate"] == ["shutdown", "destroy"]
    verbs.clear()
    host.stop("mac", 0.1)
    assert verbs == ["domstate"], "one that is shut off is left alone"


def test_a_clone_of_libvirt_is_an_overlay_that_goes_with_it(
    host: Driver[Any], guests: StandIns, tmp_path: Path
) -> None:
    need("qemu-img")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "base.qcow2", "8M"], check=True)
    name = "symcache-mac-ffffff"
    host.clone("mac", name)
    overlay = tmp_path / f"{name}-sda.qcow2"
    info = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", overlay]))
    assert (info["backing-filename"], info["backing-filename-format"]) == (str(tmp_path / "base.qcow2"), "qcow2")
    made = ["--connect", f"test://{tmp_path}/node.xml", "--original", "mac", "--name", name]
    assert guests.calls() == [["virt-clone", *made, "--file", str(overlay), "--preserve-data"]]
    host.destroy(name)
    assert not overlay.exists()
    assert (tmp_path / "base.qcow2").exists()
    with pytest.raises(UsageError, match="is an image"):
        host.destroy("mac")


# The real QEMU: a machine without a processor, which boots nothing


@pytest.fixture
def qemu(tmp_path: Path) -> Driver[Any]:
    need("qemu-system-x86_64", "qemu-img")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "base.qcow2", "8M"], check=True)
    (tmp_path / "vars.fd").write_bytes(b"NVRAM")
    arguments = ["-machine", "none", "-S", "-nodefaults", "-drive", "file={disk},format=qcow2,if=none,id=disk"]
    arguments += ["-name", "{nvram}"]
    return driver_of("qemu", tmp_path, arguments=arguments, nic="none", copies={"nvram": str(tmp_path / "vars.fd")})


def test_a_real_qemu_lives_from_overlay_to_destruction(qemu: Driver[Any], tmp_path: Path) -> None:
    image = str(tmp_path / "base.qcow2")
    before = (tmp_path / "base.qcow2").read_bytes()
    assert qemu.is_local(image)
    assert not qemu.is_local(str(tmp_path / "nope"))
    qemu.clone(image, RUN)
    home = tmp_path / "drivers/qemu" / RUN
    assert (home / "copy-nvram").read_bytes() == b"NVRAM"
    assert qemu.state(RUN) is MachineState.STOPPED
    child = qemu.start(RUN, tmp_path / "log")
    assert child is not None
    try:
        endpoint = qemu.endpoint(RUN, 120, child)
        assert endpoint.host == "127.0.0.1"
        assert qemu.state(RUN) is MachineState.RUNNING
        assert list(qemu.list()) == [(RUN, MachineState.RUNNING)]
        # Forwarded on loopback, and on no other address of this host.
        with socket.create_connection(endpoint, timeout=60):
            pass
        listening = Path("/proc/net/tcp").read_text() if Path("/proc/net/tcp").exists() else ""
        port = f":{endpoint.port:04X} "
        assert all(
            line.split()[1].startswith("0100007F") for line in listening.splitlines() if f"{port}00000000:0000" in line
        )
        command = Path(f"/proc/{child.pid}/cmdline")
        if command.exists():
            assert str(home / "copy-nvram") in command.read_text()
        with Qmp(home / "qmp.sock") as monitor, pytest.raises(EnvironmentFailure, match="refused nonsense"):
            monitor.execute("nonsense")
        qemu.stop(RUN, 0.3)  # it has no system that would power down
        assert qemu.state(RUN) is MachineState.STOPPED
        child.end()
        assert not child.alive()
    finally:
        child.end()
    qemu.destroy(RUN)
    assert qemu.state(RUN) is MachineState.MISSING
    assert (tmp_path / "base.qcow2").read_bytes() == before
    with pytest.raises(UsageError, match="is an image"):
        qemu.destroy(image)


def test_a_monitor_below_a_long_path_is_reached_as_macos_allows(
    qemu: Driver[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the path of a socket has 103 bytes at most, and there is no /proc."""
    connect = socket.socket.connect

    def narrow(self: socket.socket, address: Any) -> None:
        if self.family == socket.AF_UNIX and (len(os.fsencode(address)) > 103 or "/proc/" in os.fsdecode(address)):
            raise OSError("AF_UNIX path too long")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", narrow)
    deep = tmp_path / "Library" / "Application Support" / ("of somebody " * 6)
    driver = make_driver("qemu", qemu.options, deep)
    driver.clone(str(tmp_path / "base.qcow2"), RUN)
    child = driver.start(RUN, tmp_path / "log")
    assert child is not None
    try:
        until(lambda: driver.state(RUN) is MachineState.RUNNING)
        driver.stop(RUN, 0.1)
        assert driver.state(RUN) is MachineState.STOPPED
    finally:
        child.end()


def test_what_qemu_says_when_it_does_not_start_is_told(qemu: Driver[Any], tmp_path: Path) -> None:
    broken = driver_of("qemu", tmp_path, arguments=["-machine", "mac", "{disk}"], nic="none")
    broken.clone(str(tmp_path / "base.qcow2"), RUN)
    child = broken.start(RUN, tmp_path / "log")
    with pytest.raises(EnvironmentFailure, match=r"ended while it started: .*unsupported machine type") as raised:
        broken.endpoint(RUN, 120, child)
    assert "log" in raised.value.hint
