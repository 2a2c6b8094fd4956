"""The catalog: a SQLite index over the records of a store. Disposable: it can always be folded anew."""

from symcache.catalog.catalog import Catalog, Occurrence, ReleaseRow
from symcache.catalog.schema import SCHEMA_VERSION, release_order

__all__ = ["SCHEMA_VERSION", "Catalog", "Occurrence", "ReleaseRow", "release_order"]
