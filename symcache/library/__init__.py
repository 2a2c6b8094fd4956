"""The library: the verbs over store and catalog. What was stored stays; what is served is what was asked for."""

from typing import TYPE_CHECKING

from symcache.catalog import Conflict, Occurrence
from symcache.late_imports import late_imports
from symcache.library.add import stage_paths
from symcache.library.export_files import Exported
from symcache.library.exporting import export_device_support, export_raw_caches
from symcache.library.fsck import FsckCode, FsckFinding, FsckReport, Subset, fsck
from symcache.library.gc import DEFAULT_GRACE, MINIMUM_GRACE, GcReport, gc
from symcache.library.ingest import ingest
from symcache.library.library import Library, several_releases
from symcache.library.origin import stage_origin
from symcache.library.preferences import prefer
from symcache.library.reextract import ReextractResult, reextract
from symcache.library.repair import Fetch, repair
from symcache.library.results import Found, IngestResult, StoredCacheFile
from symcache.library.snapshots import write as write_snapshot
from symcache.library.staged import Staged, StagedCacheFile, StagedObject
from symcache.library.stats import Stats, stats
from symcache.library.storing import Storing
from symcache.library.sync_log import LEASE_SECONDS, Attempt, BuildLog, Lease, Publication, SyncLog
from symcache.library.tombstones import RemovalPlan, plan_removal, remove_build
from symcache.library.undo import RestoredRecord, removals, undo_removal
from symcache.library.user_dirs import utc
from symcache.library.uses import Uses, forget_uses, note_uses, read_uses

if TYPE_CHECKING:
    from symcache.library.cache_images import CacheImages, store_images

__all__ = [
    "DEFAULT_GRACE",
    "LEASE_SECONDS",
    "MINIMUM_GRACE",
    "Attempt",
    "BuildLog",
    "CacheImages",
    "Conflict",
    "Exported",
    "Fetch",
    "Found",
    "FsckCode",
    "FsckFinding",
    "FsckReport",
    "GcReport",
    "IngestResult",
    "Lease",
    "Library",
    "Occurrence",
    "Publication",
    "ReextractResult",
    "RemovalPlan",
    "RestoredRecord",
    "Staged",
    "StagedCacheFile",
    "StagedObject",
    "Stats",
    "StoredCacheFile",
    "Storing",
    "Subset",
    "SyncLog",
    "Uses",
    "export_device_support",
    "export_raw_caches",
    "forget_uses",
    "fsck",
    "gc",
    "ingest",
    "note_uses",
    "plan_removal",
    "prefer",
    "read_uses",
    "reextract",
    "removals",
    "remove_build",
    "repair",
    "several_releases",
    "stage_origin",
    "stage_paths",
    "stats",
    "store_images",
    "undo_removal",
    "utc",
    "write_snapshot",
]

# What extracts needs numpy, which nothing else here does.
__getattr__ = late_imports(__name__, {"cache_images": ("CacheImages", "store_images")})
