"""Stand-ins for the programs that drive virtual machines: what they print, how they fail and how late they are.

Each is a small program on PATH that keeps its machines in a file. After their documentation: tart's and UTM's sources,
Anka's and Parallels' manuals, the help text of vmrun. Only the standard library is used: they start dozens of times.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["StandIns", "main"]

PROGRAMS = ("tart", "anka", "prlctl", "vmrun", "utmctl", "virt-clone")
UUID = "5F8A7E42-1111-4222-8333-0000000000"


class StandIns:
    """The programs' machines and faults, as a test sets them up. Faults, by program and verb:

    `hang`, `fail` (message), `provisions` (tart run: the version of the host), `machine` (tart create: what the new one
    is like), `ip_after` (how often it says that there is no address yet), `quiet_failure` (UTM: message
    on stderr with exit 0), `nonsense`, `agent_after` (tart exec: how often the guest agent is not there yet).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        self._write("machines", {})
        self._write("faults", {})
        checkout = Path(__file__).parents[2]
        for name in PROGRAMS:
            script = self.bin / name
            script.write_text(
                f"#!{sys.executable} -SE\nimport sys\nsys.path.insert(0, {str(checkout)!r})\n"
                "from tests.vm_provisioning.stand_ins import main\n"
                f"main({name!r}, {str(folder)!r})\n"
            )
            script.chmod(0o755)

    def add(self, name: str, **values: Any) -> None:
        """Add a machine."""
        with _alone(self.folder):
            self._write("machines", {**self.machines, name: {"state": "stopped", "os": "darwin", **values}})

    def fault(self, program_and_verb: str, **values: Any) -> None:
        """Let a verb fail, e.g. `fault("tart ip", ip_after=2)`."""
        faults = json.loads((self.folder / "faults.json").read_text())
        faults[program_and_verb] = values
        self._write("faults", faults)

    @property
    def machines(self) -> dict[str, dict[str, Any]]:
        """All machines there are, by name."""
        found: dict[str, dict[str, Any]] = json.loads((self.folder / "machines.json").read_text())
        return found

    def calls(self) -> list[list[str]]:
        """Every command line that was run, the program first."""
        path = self.folder / "calls.jsonl"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]  # the last may be half written

    def _write(self, name: str, value: object) -> None:
        part = self.folder / f".{name}-{os.getpid()}"
        part.write_text(json.dumps(value))
        part.replace(self.folder / f"{name}.json")


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let no other stand-in, nor the test, change machines meanwhile."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class _Guests:
    """The state of one call of a stand-in."""

    def __init__(self, program: str, folder: Path) -> None:
        self.program, self.folder = program, folder
        self.machines: dict[str, dict[str, Any]] = json.loads((folder / "machines.json").read_text())

    def fault(self, verb: str) -> dict[str, Any]:
        faults = json.loads((self.folder / "faults.json").read_text())
        found: dict[str, Any] = faults.get(f"{self.program} {verb}", {})
        if found.get("hang"):
            time.sleep(600)
        return found

    def _save(self) -> None:
        part = self.folder / f".machines-{os.getpid()}"
        part.write_text(json.dumps(self.machines))
        part.replace(self.folder / "machines.json")

    def set(self, name: str, **values: Any) -> None:
        with _alone(self.folder):
            self.machines = json.loads((self.folder / "machines.json").read_text())
            self.machines.setdefault(name, {}).update(values)
            self._save()

    def count(self, what: str) -> int:
        """Return how often this was asked before."""
        path = self.folder / f"count-{what.replace(' ', '-').replace('/', '-')}"
        before = int(path.read_text()) if path.exists() else 0
        path.write_text(str(before + 1))
        return before

    def clone(self, source: str, name: str, **values: Any) -> None:
        self.set(name, **{**self.machines.get(source, {}), "state": "stopped", "image": source, **values})

    def delete(self, name: str) -> None:
        with _alone(self.folder):
            self.machines = json.loads((self.folder / "machines.json").read_text())
            del self.machines[name]
            self._save()


def die(text: str, status: int, *, stdout: bool = False) -> None:
    print(text, file=sys.stdout if stdout else sys.stderr)
    raise SystemExit(status)


def main(program: str, folder: str) -> None:
    """Be one of the programs."""
    arguments = sys.argv[1:]
    assert os.environ.get("LC_ALL") == "C", "programs are run in the C locale"
    with (Path(folder) / "calls.jsonl").open("a") as log:
        log.write(json.dumps([program, *arguments]) + "\n")
    programs: dict[str, Callable[[_Guests, list[str]], None]] = {
        "tart": _tart,
        "anka": _anka,
        "prlctl": _prlctl,
        "vmrun": _vmrun,
        "utmctl": _utmctl,
        "virt-clone": _virt_clone,
    }
    programs[program](_Guests(program, Path(folder)), arguments)


def _option(arguments: list[str], name: str) -> str:
    """Take an option with its value out of a command line."""
    if name not in arguments:
        return ""
    at = arguments.index(name)
    _, value = arguments.pop(at), arguments.pop(at)
    return value


def _tart(guests: _Guests, arguments: list[str]) -> None:
    verb, *rest = arguments
    fault = guests.fault(verb)
    if "fail" in fault:
        die(fault["fail"], 1)
    if "nonsense" in fault:
        print(fault["nonsense"])
        return
    if verb == "list":
        assert rest == ["--source", "local", "--format", "json"]
        rows = [
            {
                "Source": "local",
                "Name": name,
                "Disk": 50,
                "Size": 30,
                "Accessed": "1 minute ago",
                "Running": m["state"] == "running",
                "State": m["state"],
            }
            for name, m in guests.machines.items()
        ]
        print(json.dumps(rows, indent=2))
    elif verb == "clone":
        source, name = rest
        if source not in guests.machines and "/" not in source:
            die(f'the specified VM "{source}" does not exist', 2)
        guests.clone(source, name)
        if fault.get("slow"):
            time.sleep(fault["slow"])
    elif verb == "set":
        guests.set(rest[0], settings=rest[1:])
    elif verb == "create":
        ipsw = _option(rest, "--from-ipsw")
        _option(rest, "--disk-size")
        guests.set(rest[0], state="stopped", os="darwin", ipsw=ipsw, **fault.get("machine", {}))
        time.sleep(fault.get("slow", 0))
    elif verb == "run" and rest == ["--help"]:
        print(_TART_RUN_HELP + (_TART_RUN_PROVISIONING if "provisions" in fault else ""))
    elif verb == "run":
        _tart_run(guests, rest, fault)
    else:
        _tart_one(guests, verb, rest, fault)


_TART_RUN_HELP = """OVERVIEW: Run a VM

USAGE: tart run [<options>] <name>

OPTIONS:
  --no-graphics           Don't open a UI window.
  --no-pointer            Disable the pointer
  --no-keyboard           Disable the keyboard
"""
_TART_RUN_PROVISIONING = """  --provisioning-opts <key=value,...>
                          Provision a macOS guest on first boot using the guest provisioning API
        Takes a comma-separated list of key=value pairs that configure the initial setup of a macOS guest
"""
"""Builds of tart with Xcode 27 have it (Sources/tart/Commands/Run.swift)."""


def _tart_provision(text: str, fault: dict[str, Any]) -> dict[str, str]:
    if "provisions" not in fault:
        die("Error: Unknown option '--provisioning-opts'", 64)
    if fault["provisions"] < 27:
        die("Error: --provisioning-opts requires the host to be running macOS 27 (or newer)", 64)
    found = {}
    for pair in filter(None, text.split(",")):
        key, equals, value = pair.partition("=")
        if not equals or not key or not value:
            die(f'invalid provisioning option "{pair}", expected key=value', 1)
        if key not in {"fullName", "username", "password", "logsInAutomatically", "enablesRemoteLogin"}:
            die(f'unsupported provisioning option "{key}"', 1)
        found[key] = value
    return found


def _tart_run(guests: _Guests, rest: list[str], fault: dict[str, Any]) -> None:
    name = rest[-1]
    if options := _option(rest, "--provisioning-opts"):
        guests.set(name, provisioned=_tart_provision(options, fault))
    if name not in guests.machines:
        die(f'the specified VM "{name}" does not exist', 2)
    if sum(m["state"] == "running" and m["os"] == "darwin" for m in guests.machines.values()) >= 2:
        others = ", ".join(n for n, m in guests.machines.items() if m["state"] == "running")
        die(f"The number of VMs exceeds the system limit (other running VMs: {others})", 1)
    if "dies" in fault:
        die(fault["dies"], 1)

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    with contextlib.suppress(KeyboardInterrupt):
        guests.set(name, state="running", pid=os.getpid())
        time.sleep(600)
    guests.set(name, state="stopped")


def _tart_one(guests: _Guests, verb: str, rest: list[str], fault: dict[str, Any]) -> None:
    _option(rest, "--timeout")
    _option(rest, "--resolver")
    _option(rest, "--format")
    name, *command = rest
    machine = guests.machines.get(name)
    if machine is None:
        die(f'the specified VM "{name}" does not exist', 2)
        return
    running = machine["state"] == "running"
    if verb == "get":
        print(
            json.dumps({"OS": machine["os"], "CPU": 4, "Memory": 8192, "Running": running, "State": machine["state"]})
        )
    elif verb == "ip":
        if not running:
            die(f'VM "{name}" is not running', 2)
        if guests.count("tart ip") < fault.get("ip_after", 0):
            die("no IP address found, is your VM running?", 1)
        print(machine.get("ip", "192.168.64.7"))
    elif verb == "exec":
        if guests.count("tart exec") < fault.get("agent_after", 0):
            die("Failed to connect to the VM using its control socket: is the Tart Guest Agent running?", 1)
        if command == ["/bin/cat", "/etc/ssh/ssh_host_ed25519_key.pub"]:
            print(machine.get("host_key", ""))
    elif verb == "stop":
        if not running:
            die(f'VM "{name}" is not running', 2)
        os.kill(machine["pid"], signal.SIGINT)
        while json.loads((guests.folder / "machines.json").read_text())[name]["state"] != "stopped":
            time.sleep(0.05)
    elif verb == "delete":
        guests.delete(name)


def _anka(guests: _Guests, arguments: list[str]) -> None:
    machine_readable = arguments[0] == "--machine-readable"
    verb, *rest = arguments[1:] if machine_readable else arguments
    fault = guests.fault(verb)

    def answer(body: object) -> None:
        print(json.dumps({"status": "OK", "body": body}))

    def no(message: str) -> None:
        print(json.dumps({"status": "FAIL", "code": fault.get("code", 3), "message": message}))
        raise SystemExit(3)

    if "fail" in fault and not ("unless" in fault and fault["unless"] in rest):
        no(fault["fail"])
    if verb == "list":
        answer(
            [
                {
                    "name": n,
                    "uuid": f"{UUID}{i:02}",
                    "creation_date": "2026-01-01",
                    "version": None,
                    "status": m["state"],
                }
                for i, (n, m) in enumerate(guests.machines.items())
            ]
        )
        return
    if verb == "run":
        name, *command = rest
        print(guests.machines[name].get("host_key", " ".join(command)))
        return
    tag = _option(rest, "-t")
    _option(rest, "-d")
    force = "-f" in rest
    rest = [r for r in rest if not r.startswith("-")]
    name = rest[0]
    if verb != "create" and name not in guests.machines:
        no(f"{name}: not found")
    if verb == "create":
        guests.set(name, state="stopped", os="darwin", ipsw=rest[1])
    elif verb == "clone":
        guests.clone(name, rest[1], tag=tag)
    elif verb == "start":
        guests.set(name, state="running")
    elif verb == "stop":
        guests.set(name, state="stopped", forced=force)
    elif verb == "delete":
        guests.delete(name)
    elif verb == "show":
        body = {"uuid": f"{UUID}00", "name": name, "arch": 2, "status": guests.machines[name]["state"]}
        if body["status"] == "running" and guests.count("anka show") >= fault.get("ip_after", 0):
            body["ip"] = guests.machines[name].get("ip", "192.168.64.9")
        answer(body)
        return
    answer(None)


def _prlctl(guests: _Guests, arguments: list[str]) -> None:
    verb, *rest = arguments
    fault = guests.fault(verb)
    linked = "--linked" in rest
    if "fail" in fault and (linked or "only" not in fault):
        die(fault["fail"], 255)
    if rest == ["-a", "-i", "-j"]:
        rows = [
            {
                "ID": f"{UUID}{i:02}",
                "Name": n,
                "State": m["state"],
                "OS": {"darwin": "macosx"}.get(m["os"], m["os"]),
                "Hardware": {"cpu": {"cpus": 4}, "net0": {"enabled": True, "mac": m.get("mac", "001C42AABBCC")}},
            }
            for i, (n, m) in enumerate(guests.machines.items())
        ]
        print(json.dumps(rows))
        return
    name = rest[0]
    if name not in guests.machines:
        die(f"Failed to get VM config: The virtual machine could not be found. ({name})", 255)
    if verb == "list":
        assert rest[1:] == ["--full", "--no-header", "-o", "ip_configured"]
        late = guests.count("prlctl list") < fault.get("ip_after", 0)
        print("-" if late else guests.machines[name].get("ip", "10.211.55.5 fdb2:2c26:f4e4:0:21c:42ff:feaa:bbcc"))
    elif verb == "clone":
        guests.clone(name, _option(rest, "--name"), linked=linked)
    elif verb == "start":
        guests.set(name, state="running")
    elif verb == "stop":
        if "--kill" not in rest and fault.get("hangs_unless_killed"):
            time.sleep(600)
        guests.set(name, state="stopped", killed="--kill" in rest)
    elif verb == "exec":
        print(guests.machines[name].get("host_key", ""))
    elif verb == "delete":
        guests.delete(name)


def _vmrun(guests: _Guests, arguments: list[str]) -> None:
    assert arguments[:2] == ["-T", "fusion"], "flags come before the verb"
    verb, *rest = arguments[2:]
    fault = guests.fault(verb)
    if "fail" in fault:
        die(f"Error: {fault['fail']}", 255, stdout=True)
    if verb == "list":
        running = [n for n, m in guests.machines.items() if m["state"] == "running"]
        print("\n".join([f"Total running VMs: {len(running)}", *running]))
        return
    vmx = rest[0]
    if not Path(vmx).exists():
        die(f"Error: Cannot open VM: {vmx}, The virtual machine cannot be found", 255, stdout=True)
    if verb == "clone":
        target = Path(rest[1])
        target.parent.mkdir(parents=True)
        target.write_text("config.version = 8\n")
        guests.clone(vmx, str(target), kind=rest[2], options=rest[3:])
    elif verb == "start":
        guests.set(vmx, state="running")
    elif verb == "getGuestIPAddress":
        asked = guests.count("vmrun ip")
        if asked < fault.get("tools_after", 0):
            die("Error: The VMware Tools are not running in the virtual machine: " + vmx, 255, stdout=True)
        print("unknown" if asked < fault.get("ip_after", 0) else guests.machines[vmx].get("ip", "172.16.12.5"))
    elif verb == "stop":
        if rest[1] == "soft" and fault.get("hangs_unless_killed"):
            time.sleep(600)
        guests.set(vmx, state="stopped", how=rest[1])
    elif verb == "deleteVM":
        Path(vmx).unlink()
        guests.delete(vmx)


def _utmctl(guests: _Guests, arguments: list[str]) -> None:
    verb, *rest = arguments
    fault = guests.fault(verb)
    if "quiet_failure" in fault:
        die(fault["quiet_failure"], 0)
    if verb == "list":
        print("UUID                                 Status   Name")
        for i, (name, m) in enumerate(guests.machines.items()):
            status = {"running": "started"}.get(m["state"], m["state"])
            print(f"{UUID}{i:02} {status:<8} {name}")
        return
    new = _option(rest, "--name")
    (name,) = [r for r in rest if not r.startswith("-")]
    if name not in guests.machines:
        die("Error from event: Virtual machine not found.", 0)
        return
    if verb == "clone":
        guests.clone(name, new)
    elif verb == "start":
        guests.set(name, state="running")
    elif verb == "ip-address":
        if guests.count("utmctl ip") < fault.get("ip_after", 0):
            die("Error from event: The operation couldn\u2019t be completed. (OSStatus error -2700.)", 0)
        print(guests.machines[name].get("ip", "fe80::1\n192.168.64.11"))
    elif verb == "stop":
        if "--request" in rest and fault.get("deaf"):
            return
        guests.set(name, state="stopped", how=[r for r in rest if r.startswith("-")])
    elif verb == "delete":
        guests.delete(name)


def _virt_clone(guests: _Guests, arguments: list[str]) -> None:
    fault = guests.fault(arguments[2])
    if "fail" in fault:
        die(f"ERROR    {fault['fail']}", 1)
    guests.set("virt-clone", arguments=arguments)
