"""`python -m tests.acceptance`: runs the parts one after the other, and writes the two files.

Ends with 0 if everything is as expected, whatever was skipped; with 1 if there are differences or a part failed; with 2
if this is no Mac.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from symcache.errors import SymcacheError
from tests.acceptance.crash_reports import crash_reports
from tests.acceptance.crashes import crashes
from tests.acceptance.debuggers import debuggers
from tests.acceptance.extraction import extraction
from tests.acceptance.harvests import harvests
from tests.acceptance.mac import Mac, Options
from tests.acceptance.machines import machines
from tests.acceptance.names import names
from tests.acceptance.page_hashes import page_hashes
from tests.acceptance.part import Part, SkippedError
from tests.acceptance.questions import questions
from tests.acceptance.redaction import PersonalDataError, Redaction, personal_words
from tests.acceptance.result_files import verdict, write_results
from tests.acceptance.set_up import set_up, system

__all__ = ["PARTS", "run_parts"]

PARTS: dict[str, Callable[[Mac, Part], None]] = {
    "set-up": set_up,
    "questions": questions,
    "page-hashes": page_hashes,
    "extraction": extraction,
    "names": names,
    "harvests": harvests,
    "crashes": crashes,
    "debuggers": debuggers,
    "crash-reports": crash_reports,
    "machines": machines,
}
"""In this order: what is cheap and tells most comes first, and later parts use what harvests and crashes made."""


def run_parts(mac: Mac, chosen: Sequence[str], say: Callable[[str], None]) -> list[Part]:
    """Run parts; none keeps the next from being run."""
    parts: list[Part] = []
    for name in chosen:
        part = Part(name)
        say(f"{name} …")
        try:
            mac.need_time()
            with part.timed("in all"):
                PARTS[name](mac, part)
        except KeyboardInterrupt:
            part.failed = "interrupted"
            return [*parts, part]
        except SkippedError as skipped:
            part.skipped.append((str(skipped), skipped.todo))
        except (SymcacheError, OSError) as error:
            part.failed = f"{error} ({getattr(error, 'hint', '')})"
        except Exception as error:  # the others shall run, and we shall hear of it
            part.failed = f"{type(error).__name__}: {error}"
        parts.append(part)
    return parts


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts that the arguments choose, and write the results."""
    parser = argparse.ArgumentParser(prog="python -m tests.acceptance", description=__doc__)
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part; may be repeated")
    parser.add_argument("--without", action="append", choices=PARTS, default=[], help="not this part")
    parser.add_argument("--output", type=Path, default=Path("mac-acceptance"), help="folder of both files")
    parser.add_argument("--work", type=Path, help="folder on the disk to work on (default: the temporary one)")
    parser.add_argument("--arch", action="append", default=[], help="only caches of this architecture")
    parser.add_argument("--images", type=int, default=Options.images, help="images whose names are compared")
    parser.add_argument("--addresses", type=int, default=Options.addresses, help="addresses in each of them")
    parser.add_argument("--ssh", default="", help="URL of this Mac (default: ssh://USER@localhost)")
    parser.add_argument("--identity", type=Path, help="private key that it lets in")
    parser.add_argument("--password-env", help="environment variable with the password for it, and of the VM")
    parser.add_argument("--minutes", type=float, default=Options.minutes, help="begin nothing long after so many")
    parser.add_argument("--vm", metavar="DRIVER=IMAGE", help="image of a throw-away VM to clone and start")
    chosen = parser.parse_args(arguments)
    if platform.system() != "Darwin":
        print("error: this is no Mac, and all of it is about Macs (docs/mac-acceptance.md)", file=sys.stderr)
        return 2
    vm = tuple(chosen.vm.split("=", 1)) if chosen.vm and "=" in chosen.vm else None
    options = Options(
        archs=tuple(chosen.arch),
        images=chosen.images,
        addresses=chosen.addresses,
        ssh=chosen.ssh,
        identity=chosen.identity,
        password_env=chosen.password_env,
        minutes=chosen.minutes,
        vm=(vm[0], vm[1]) if vm else None,
    )
    with tempfile.TemporaryDirectory(prefix="symcache-acceptance-", dir=chosen.work) as work:
        mac = Mac(Path(work), options)
        names_of_parts = [name for name in chosen.part or PARTS if name not in chosen.without]
        return finish(mac, run_parts(mac, names_of_parts, print), chosen.output)


def finish(mac: Mac, parts: Sequence[Part], output: Path) -> int:
    """Write the files, say where they are, and return the exit status."""
    try:
        files = write_results(output, system(mac), parts, Redaction(personal_words(mac)))
    except PersonalDataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for part in parts:
        print(f"{part.name}: {verdict(part)}")
    print("Read them before you send them (docs/mac-acceptance.md):", *files, sep="\n  ")
    return int(any(part.failed or part.differing for part in parts))


if __name__ == "__main__":
    sys.exit(main())
