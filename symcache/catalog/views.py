"""The views of the catalog; what each is for stands in `schema`. Here `@(column)` is a UUID as text."""

from __future__ import annotations

import re

__all__ = ["CONTENT", "VIEWS"]

_TEXT = {
    "releases": """
SELECT product, version, extra, build, max(release_order) AS release_order, max(sealed) AS sealed,
       count(*) AS harvests,
       (SELECT count(DISTINCT o.uuid) FROM objects o JOIN records x ON x.id = o.record
        WHERE x.build = r.build AND x.system = r.system AND x.live) AS images
FROM records r WHERE build IS NOT NULL AND live AND type = 'harvest' GROUP BY system, build
""",
    "caches": """
SELECT @(l.cache_uuid) AS cache_uuid, l.arch, r.build, r.version, max(r.sealed) AS sealed,
       count(DISTINCT m.uuid) AS images,
       (SELECT count(DISTINCT f.name) FROM cache_files f JOIN records x ON x.id = f.record
        WHERE f.cache_uuid = l.cache_uuid AND x.live AND x.build IS r.build AND x.system = r.system) AS raw_files
FROM manifest_entries m JOIN layouts l ON l.id = m.layout JOIN records r ON r.id = m.record
WHERE r.live AND length(l.cache_uuid) = 16 GROUP BY l.cache_uuid, l.arch, r.system, r.build
""",
    "images": """
SELECT @(o.uuid) AS uuid, l.kind, min(p.name) AS name, min(l.arch) AS arch,
       count(DISTINCT o.sha256) AS contents, count(DISTINCT r.build) AS builds
FROM objects o JOIN layouts l ON l.id = o.layout JOIN records r ON r.id = o.record JOIN paths p ON p.id = o.path
WHERE r.live AND length(o.uuid) = 16 GROUP BY o.uuid, l.kind
""",
    "occurrences": """
SELECT @(o.uuid) AS uuid, l.kind, p.path, l.arch, l.origin, @(l.cache_uuid) AS cache_uuid, l.extractor,
       l.revision, lower(hex(o.sha256)) AS sha256, o.size, o.symbols, r.build, r.version, r.sealed,
       CASE r.trust WHEN 0 THEN 'harvest' WHEN 1 THEN 'added' ELSE 'pushed' END AS trust, r.sha256 AS record
FROM objects o JOIN layouts l ON l.id = o.layout JOIN records r ON r.id = o.record JOIN paths p ON p.id = o.path
WHERE r.live
""",
    "manifests": """
SELECT r.build, r.version, p.path, l.arch, @(m.uuid) AS uuid, l.kind, l.origin,
       @(l.cache_uuid) AS cache_uuid, r.sealed, r.sha256 AS record
FROM manifest_entries m JOIN layouts l ON l.id = m.layout JOIN records r ON r.id = m.record
JOIN paths p ON p.id = m.path
WHERE r.live
""",
    "missing": """
SELECT r.build, r.version, p.path, l.arch, @(m.uuid) AS uuid, l.kind, l.origin,
       @(l.cache_uuid) AS cache_uuid
FROM manifest_entries m JOIN layouts l ON l.id = m.layout JOIN records r ON r.id = m.record
JOIN paths p ON p.id = m.path
WHERE r.live AND NOT EXISTS (
    SELECT 1 FROM objects o JOIN layouts k ON k.id = o.layout JOIN records x ON x.id = o.record
    WHERE o.path = m.path AND o.uuid = m.uuid AND k.kind = l.kind AND k.arch = l.arch AND k.cache_uuid = l.cache_uuid
      AND x.live AND x.build IS r.build AND x.system = r.system)
""",
}


def _uuid(column: str) -> str:
    """Return SQL for a UUID BLOB as Apple's tools print it, and as NULL when it is empty."""
    cuts = ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))
    parts = " || '-' || ".join(f"substr(hex({column}), {start}, {length})" for start, length in cuts)
    return f"CASE WHEN length({column}) = 16 THEN {parts} END"


VIEWS = {name: re.sub(r"@\(([a-z_.]+)\)", lambda m: _uuid(m[1]), text) for name, text in _TEXT.items()}

CONTENT = {
    "records": "SELECT sha256, type, live, trust, product, version, extra, build, system, release_order, sealed,"
    " source, extractor, tool, operator, started, finished, problems, images, checksum FROM records",
    "keys": "SELECT k.key, r.sha256 FROM record_keys k LEFT JOIN records r ON r.id = k.record",
    "retired": "SELECT t.sha256, r.sha256 FROM retired t LEFT JOIN records r ON r.id = t.record",
    "preferences": "SELECT p.uuid, p.kind, p.cache_uuid, p.sha256, r.sha256 FROM preferences p"
    " LEFT JOIN records r ON r.id = p.record",
    "objects": "SELECT o.uuid, l.kind, l.arch, l.origin, l.cache_uuid, l.extractor, l.revision, p.path, p.name,"
    " o.sha256, o.size, o.symbols, o.code, o.checksum, r.sha256 FROM objects o LEFT JOIN layouts l ON l.id = o.layout"
    " LEFT JOIN paths p ON p.id = o.path LEFT JOIN records r ON r.id = o.record",
    "manifest": "SELECT m.uuid, l.kind, l.arch, l.origin, l.cache_uuid, l.extractor, l.revision, p.path, r.sha256"
    " FROM manifest_entries m LEFT JOIN layouts l ON l.id = m.layout LEFT JOIN paths p ON p.id = m.path"
    " LEFT JOIN records r ON r.id = m.record",
    "sources": "SELECT s.uuid, s.number, s.recorded, s.place, r.sha256 FROM sources s"
    " LEFT JOIN records r ON r.id = s.record",
    "collections": "SELECT c.uuid, c.collection, c.name, p.path, r.sha256 FROM collections c"
    " LEFT JOIN paths p ON p.id = c.path LEFT JOIN records r ON r.id = c.record",
    "cache_files": "SELECT f.cache_uuid, f.name, f.arch, f.path, f.sha256, f.size, f.partial, r.sha256"
    " FROM cache_files f LEFT JOIN records r ON r.id = f.record",
}
"""Everything that the tables hold, without the numbers that depend on the order of folding."""
