"""`python -m tests.bench.dyld_child CACHE OUTPUT JOBS`: extracts all and prints what it took, as one JSON object."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

from symcache.dyld import SharedCache, extract_all

if __name__ == "__main__":
    start = time.perf_counter()
    with SharedCache.open(Path(sys.argv[1])) as cache:
        report = extract_all(cache, Path(sys.argv[2]), jobs=int(sys.argv[3]))
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    json.dump(
        {
            "seconds": time.perf_counter() - start,
            "bytes": report.size,
            "images": len(report.extracted),
            "failed": len(report.failed),
            "cpu": own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime,
            # Of the largest child; there are JOBS - 1.
            "memory": (own.ru_maxrss + children.ru_maxrss * (int(sys.argv[3]) - 1)) * 1024,
        },
        sys.stdout,
    )
