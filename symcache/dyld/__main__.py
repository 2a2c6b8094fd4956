"""`python -m symcache.dyld OUTPUT CACHE whole|partial`: a child process of `extract_all`, not for people."""

import sys
from pathlib import Path

from symcache.dyld.batch import ToFiles
from symcache.dyld.processes import serve_batches

serve_batches(ToFiles(Path(sys.argv[1])), *sys.argv[2:])
