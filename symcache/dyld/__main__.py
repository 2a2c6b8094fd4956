"""`python -m symcache.dyld CACHE OUTPUT whole|partial`: a child process of `extract_all`, not for people."""

import sys

from symcache.dyld.processes import main

main(*sys.argv[1:])
