"""`atos -o FILE -arch ARCH -l LOAD -f ADDRESSES`, in the form of its manual: from the symbol table alone.

PLANT=atos has it call the function with the most addresses by another name.
"""

from __future__ import annotations

import bisect
import os
import sys
from pathlib import Path

from tests.dyld.macho_reader import read


def main() -> int:
    options = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    path = Path(options["-o"])
    if not path.is_file():
        print(f"atos cannot load symbols for the file {path} for architecture {options['-arch']}.", file=sys.stderr)
        return 1
    image = read(path)
    slide = int(options["-l"], 16) - image.segment("__TEXT").vmaddr
    symbols = sorted((s.value, s.name) for s in image.symbols if s.type & 0xE == 0xE and not s.type & 0xE0)
    starts = [value for value, _ in symbols]
    for text in Path(options["-f"]).read_text().split():
        address = int(text, 16) - slide
        index = bisect.bisect_right(starts, address) - 1
        if index < 0:
            print(text)
            continue
        value, name = symbols[index]
        shown = "somebody_elses" if os.environ.get("PLANT") == "atos" else name.removeprefix("_")
        offset = f" + {address - value}" if address != value else ""
        print(f"{shown} (in {path.name}){offset}")
    return 0


sys.exit(main())
