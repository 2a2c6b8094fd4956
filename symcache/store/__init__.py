"""The store: immutable blobs and harvest records by key. The truth of a library; the catalog is derived from it."""

from symcache.store.base import (
    BLOB_KEY,
    LIBRARY_ID,
    MARKER,
    BlobStat,
    RecordKey,
    SigningStore,
    Store,
    blob_key,
    last_sequence,
)
from symcache.store.blobs import BlobReader, decode_to, decoded, frame_sizes, unreadable_is_damaged
from symcache.store.library_id import make_library_id, read_library_id
from symcache.store.local import LocalStore
from symcache.store.opening import open_store
from symcache.store.outage import PATIENCE
from symcache.store.records import load_record, no_garbage_collection, parse_record, read_record, write_record
from symcache.store.writing import (
    COMPRESSION_LEVEL,
    compressor,
    keep_blob,
    new_object,
    put_blob,
    put_object,
    put_pieces,
)

__all__ = [
    "BLOB_KEY",
    "COMPRESSION_LEVEL",
    "LIBRARY_ID",
    "MARKER",
    "PATIENCE",
    "BlobReader",
    "BlobStat",
    "LocalStore",
    "RecordKey",
    "SigningStore",
    "Store",
    "blob_key",
    "compressor",
    "decode_to",
    "decoded",
    "frame_sizes",
    "keep_blob",
    "last_sequence",
    "load_record",
    "make_library_id",
    "new_object",
    "no_garbage_collection",
    "open_store",
    "parse_record",
    "put_blob",
    "put_object",
    "put_pieces",
    "read_library_id",
    "read_record",
    "unreadable_is_damaged",
    "write_record",
]
