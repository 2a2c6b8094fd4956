"""What a debugger has to say about every thread of a run, known from the emulator and LLVM's tools alone."""

from __future__ import annotations

import json
import subprocess
from bisect import bisect_right
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.corpus.build import symbol_table
from tests.corpus.emulate import Machine
from tests.corpus.process import Module


@dataclass(frozen=True)
class Frame:
    """One frame: pc is the return address in all but the innermost. file and line only where a dSYM has them.

    `inlined`: the function has no frame of its own on the stack; it shares the pc of the frame after it.
    """

    pc: int
    module: str
    uuid: str
    function: str
    file: str | None = None
    line: int | None = None
    inlined: bool = False


@dataclass(frozen=True)
class Thread:
    """A thread's frames, innermost first."""

    index: int
    crashed: bool
    frames: tuple[Frame, ...]


@dataclass(frozen=True)
class Truth:
    """A run. `fault_address`, `write`: the access that crashed it. `modules`: (path, UUID, load address)."""

    arch: str
    executable: str
    crashed_thread: int
    fault_address: int
    fault_is_write: bool
    modules: tuple[tuple[str, str, int], ...]
    threads: tuple[Thread, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Truth:
        data: dict[str, Any] = json.loads(text)
        threads = tuple(
            Thread(t["index"], t["crashed"], tuple(Frame(**f) for f in t["frames"])) for t in data.pop("threads")
        )
        modules = tuple((path, uuid, address) for path, uuid, address in data.pop("modules"))
        return cls(**data, threads=threads, modules=modules)


@cache
def _functions(file: Path) -> tuple[list[int], list[str]]:
    by_address: dict[int, str] = {}
    for name, address in symbol_table(file).items():
        by_address.setdefault(address, name)
    addresses = sorted(by_address)
    return addresses, [by_address[a] for a in addresses]


def function_at(file: Path, address: int) -> str:
    """Return the last symbol that begins at or before an address of the file, without C's underscore."""
    addresses, names = _functions(file)
    return names[bisect_right(addresses, address) - 1].removeprefix("_")


def lines_at(dwarf: Path, address: int) -> list[tuple[str, str, int]]:
    """Return function, file and line of an address as llvm-symbolizer tells them: inlined functions first."""
    done = subprocess.run(
        ["llvm-symbolizer-19", f"--obj={dwarf}", "--output-style=JSON", hex(address)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [(s["FunctionName"], s["FileName"], s["Line"]) for s in json.loads(done.stdout)[0]["Symbol"]]


def _frames(module: Module | None, pc: int, *, innermost: bool, symbols: dict[str, Path]) -> list[Frame]:
    if module is None:
        raise ValueError(f"{pc:#x} lies in no module")
    # A return address may be the next function's first: look at the call.
    address = module.file_address(pc if innermost else pc - 1)
    assert address is not None
    function = function_at(symbols.get(module.path, module.file), address)
    if not module.debug:
        return [Frame(pc, module.path, module.uuid, function)]
    *inlined, (_, file, line) = lines_at(module.debug, address)
    return [
        *(Frame(pc, module.path, module.uuid, *where, inlined=True) for where in inlined),
        Frame(pc, module.path, module.uuid, function, file, line),
    ]


def ground_truth(machine: Machine, symbols: dict[str, Path]) -> Truth:
    """Name every frame. `symbols`: by path, the file to take names from where the module's own is stripped."""
    process = machine.process
    threads = tuple(
        Thread(
            index,
            thread.fault is not None,
            tuple(
                frame
                for level, pc in enumerate(thread.frames)
                for frame in _frames(process.module_at(pc), pc, innermost=level == 0, symbols=symbols)
            ),
        )
        for index, thread in enumerate(machine.threads)
    )
    crashed = next(t.index for t in threads if t.crashed)
    fault = machine.threads[crashed].fault
    assert fault is not None
    return Truth(
        process.arch,
        process.modules[0].path,
        crashed,
        fault.address,
        fault.write,
        tuple((m.path, m.uuid, m.load_address) for m in process.modules),
        threads,
    )
