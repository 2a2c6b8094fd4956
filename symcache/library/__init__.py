"""The library: the verbs over store and catalog. What was stored stays; what is served is what was asked for."""

from symcache.catalog import Conflict, Occurrence
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
from symcache.library.sync_log import LEASE_SECONDS, Attempt, BuildLog, Lease, Publication, SyncLog
from symcache.library.tombstones import RemovalPlan, plan_removal, remove_build
from symcache.library.undo import RestoredRecord, removals, undo_removal
from symcache.library.user_dirs import utc
from symcache.library.uses import Uses, forget_uses, note_uses, read_uses

__all__ = [
    "DEFAULT_GRACE",
    "LEASE_SECONDS",
    "MINIMUM_GRACE",
    "Attempt",
    "BuildLog",
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
    "undo_removal",
    "utc",
    "write_snapshot",
]
