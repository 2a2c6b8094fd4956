"""`python -m symcache.library LOCATION whole|any CACHE whole|partial`: stores images for `Storing`, not for people."""

import sys

from symcache.dyld import serve_batches
from symcache.library.cache_images import ToStore

serve_batches(ToStore.in_child(*sys.argv[1:3]), *sys.argv[3:])
