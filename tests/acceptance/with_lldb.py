"""`python -m tests.acceptance.with_lldb ORIGIN ARGUMENTS…`: symcache, with the LLDB of that origin and no other."""

from __future__ import annotations

import sys

from symcache.cli import main
from symcache.dump.lldb_child import finder, process

if __name__ == "__main__":
    chosen = next(lldb for lldb in finder.candidates() if lldb.origin == sys.argv[1])
    setattr(process, "find_lldb", lambda: chosen)  # noqa: B010 - what it imported itself
    del sys.argv[1]
    main()
