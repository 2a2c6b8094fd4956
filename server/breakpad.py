"""Breakpad symbol files made from binaries: every function's address and name, without lines.

Format: `docs/symbol_files.md` of Breakpad, records MODULE and PUBLIC; addresses count from the image's header. The
symbols are read by LIEF in a process of its own, since files from outside may crash or fill it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from symcache.errors import IntegrityError
from symcache.files import published

__all__ = ["REVISION", "make_symbol_file"]

REVISION = 1
"""Part of the name that a made file is cached under."""
_SECONDS = 120
_MEMORY = 8 << 30
_N_SECT, _N_TYPE, _N_STAB = 0x0E, 0x0E, 0xE0


def make_symbol_file(images: Sequence[int], uuid: UUID, arch: str, name: str, target: Path) -> None:
    """Write the symbol file of a module to `target`, which appears whole or not at all.

    `images` are open descriptors: of its dSYM, if it has one, and of its binary. Raises IntegrityError when the symbols
    cannot be read.
    """
    plain = "".join(c for c in name if c.isprintable())
    command = [sys.executable, "-I", "-c", "from server.breakpad import main; main()"]
    with published(target, mode=0o600) as part, part.open("wb") as out:
        try:
            out.write(f"MODULE mac {arch} {uuid.hex.upper()}0 {plain}\n".encode())
            out.flush()
            subprocess.run(
                [*command, *(f"/dev/fd/{number}" for number in images)],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.DEVNULL,
                timeout=_SECONDS,
                check=True,
                env={"PATH": "/usr/bin:/bin"},
                pass_fds=images,
            )
        except subprocess.SubprocessError as error:
            raise IntegrityError(f"{plain}: its symbols cannot be read: {type(error).__name__}") from error


def main() -> None:
    """Print PUBLIC records of the images named on the command line, by address."""
    if sys.platform == "linux":
        import resource  # noqa: PLC0415

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    import lief  # noqa: PLC0415

    found: dict[int, str] = {}
    for file in sys.argv[1:]:
        fat = lief.MachO.parse(file)
        if fat is None:
            sys.exit(1)
        for binary in fat:
            text = binary.get_segment("__TEXT")
            base = text.virtual_address if text else 0
            for symbol in binary.symbols:
                kind = int(symbol.raw_type)
                if kind & _N_TYPE == _N_SECT and not kind & _N_STAB and symbol.value >= base and symbol.name:
                    name = str(symbol.name).removeprefix("_")
                    if name.isprintable():
                        found.setdefault(symbol.value - base, name)
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    sys.stdout.writelines(f"PUBLIC {address:x} 0 {name}\n" for address, name in sorted(found.items()))
