"""`python -m symcache.demo FOLDER`: the stand-in Mac of `symcache demo` by itself, up until Ctrl-C.

FOLDER, which must not be there yet, gets an inventory (`machines.toml`), and what crashed there (`app`, `dumps`).
"""

from __future__ import annotations

import shutil
import signal
import sys
from importlib import resources
from pathlib import Path

from symcache.demo.standin import StandInHost
from symcache.files import atomic_write_bytes

__all__ = ["main"]


def main(folder: Path) -> None:
    """Run the host until this process is interrupted or terminated."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # its key is removed either way
    with resources.as_file(resources.files("symcache.demo") / "assets") as assets:
        shutil.copytree(assets, folder)
    with StandInHost(folder / "host", layout="13") as host:
        said = {"driver": "static", "host": host.address, "user": host.username}
        said |= {"identity": str(host.identity_file), "host_key": host.fingerprint}
        lines = ["[machines.mac]", *(f'{key} = "{value}"' for key, value in said.items()), f"port = {host.port}"]
        inventory = folder / "machines.toml"
        atomic_write_bytes(inventory, ("\n".join(lines) + "\n").encode())
        sys.stdout.write(f"{inventory}: a stand-in for a Mac, up until Ctrl-C\n")
        sys.stdout.flush()
        try:
            signal.pause()
        except KeyboardInterrupt:
            inventory.unlink()


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: python -m symcache.demo FOLDER")
    if Path(sys.argv[1]).exists():
        sys.exit(f"{sys.argv[1]}: is there already; name a folder that is not")
    main(Path(sys.argv[1]))
