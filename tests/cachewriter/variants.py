"""The variants of `matrix`, each built once a session."""

from __future__ import annotations

from functools import cache

from tests.cachewriter import BuiltCache, build_cache
from tests.cachewriter.matrix import matrix
from tests.cachewriter.samples import sample

VARIANTS = dict(matrix())


@cache
def built(identity: str) -> BuiltCache:
    options = VARIANTS[identity]
    return build_cache(sample(options), options)
