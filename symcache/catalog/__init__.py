"""The catalog: a SQLite index over the records of a store. Disposable: it can always be folded anew."""

from symcache.catalog.browse import MOST_PATHS, ImageOrder
from symcache.catalog.catalog import Catalog
from symcache.catalog.file import copy_catalog
from symcache.catalog.glance import GlancedRelease, GlancedUnit
from symcache.catalog.ranking import OWN_EXTRACTOR
from symcache.catalog.rows import (
    CacheFileRow,
    CollectedImage,
    Conflict,
    Counts,
    Growth,
    Harvest,
    HarvestRow,
    Listing,
    ManifestRow,
    MissingImage,
    Occurrence,
    PathSummary,
    ReleaseRow,
    Removal,
    StoredSize,
)
from symcache.catalog.schema import SCHEMA_VERSION, release_order

__all__ = [
    "MOST_PATHS",
    "OWN_EXTRACTOR",
    "SCHEMA_VERSION",
    "CacheFileRow",
    "Catalog",
    "CollectedImage",
    "Conflict",
    "Counts",
    "GlancedRelease",
    "GlancedUnit",
    "Growth",
    "Harvest",
    "HarvestRow",
    "ImageOrder",
    "Listing",
    "ManifestRow",
    "MissingImage",
    "Occurrence",
    "PathSummary",
    "ReleaseRow",
    "Removal",
    "StoredSize",
    "copy_catalog",
    "release_order",
]
