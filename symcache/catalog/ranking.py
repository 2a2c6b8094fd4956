"""Which of several contents under one UUID is meant: a pure function of fields of the records.

Contents are looked at in *slots*: (kind, shared cache). Within a slot, in this order:

1. a person's preference,
2. trust: harvest, added, pushed; sealed before partial,
3. our own extractor before others, a later revision before an earlier one,
4. the content that was there first, and before it its unstripped twin (same code, more symbols). So contents that
   contradict each other do not change what is served.

Slots stand in the order of their first contents: trust, sealed, then the newest release. "First" is the earliest
`finished`, with ties broken by the id of the record.

Which of them may answer at all is said by `believed`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from symcache.catalog.rows import Occurrence, RecordRow
from symcache.model import ImageKey, Kind, Trust

__all__ = ["OWN_EXTRACTOR", "TRUSTS", "TRUST_RANK", "Slot", "believed", "rank"]

OWN_EXTRACTOR = "symcache"
TRUST_RANK = {Trust.HARVEST: 0, Trust.ADDED: 1, Trust.PUSHED: 2}
"""The order of trust; what upstream servers have comes after all of it. Catalogs hold these numbers: another order is
another `SCHEMA_VERSION`."""
TRUSTS = {rank: trust for trust, rank in TRUST_RANK.items()}

Slot = tuple[UUID | None, Kind, UUID | None]
"""(UUID, kind, cache UUID): what a preference is about."""
Row = tuple[Occurrence, RecordRow]


def believed(contents: Sequence[Occurrence], preferences: Mapping[Slot, str]) -> list[Occurrence]:
    """Return those of the contents of one UUID that may be used.

    Whoever makes a file chooses its UUID. So where anything was harvested, nothing else tells of it: neither in its
    place nor beside it, as its dSYM or in what is made of both. Of own files, what was added goes before what was
    pushed of the same kind; a dSYM may be pushed for a binary that was added. A person may decide otherwise.
    """
    harvested = any(o.trust is Trust.HARVEST for o in contents)
    best = {o.kind: min(TRUST_RANK[p.trust] for p in contents if harvested or p.kind is o.kind) for o in contents}
    return [o for o in contents if TRUST_RANK[o.trust] == best[o.kind] or preferences.get(o.key[:3]) == o.sha256]


def rank(rows: list[Row], preferences: Mapping[Slot, str]) -> list[Occurrence]:
    """Return the occurrences of *one* UUID, the one that is meant first, with rivals marked as such."""
    if len(rows) == 1:
        return [rows[0][0]]
    slots: dict[Slot, list[Row]] = {}
    for row in rows:
        slots.setdefault(row[0].key[:3], []).append(row)
    ordered: list[tuple[tuple[int, bool], str, tuple[str, str, str], list[Occurrence]]] = []
    for slot, members in slots.items():
        contents = _contents(members, preferences.get(slot))
        top = contents[0][0]
        # A tie is broken by what the records say, never by the order of rows.
        tie = (str(slot[2] or ""), slot[1].value, top[0].sha256)
        ordered.append(((_trust(top[1]), not top[1].sealed), top[1].release_order, tie, _flatten(contents)))
    ordered.sort(key=lambda s: s[2])
    ordered.sort(key=lambda s: s[1], reverse=True)
    ordered.sort(key=lambda s: s[0])
    return [o for slot in ordered for o in slot[3]]


def _trust(record: RecordRow) -> int:
    return TRUST_RANK[record.trust]


def _contents(rows: list[Row], preferred: str | None) -> list[list[Row]]:
    """Return the rows of one slot by content, best content first; in each, the row that speaks for it first."""
    by_content: dict[tuple[ImageKey, str], list[Row]] = {}
    for row in rows:
        by_content.setdefault((row[0].key, row[0].sha256), []).append(row)
    families: dict[tuple[object, ...], tuple[str, str]] = {}
    ranked: list[tuple[tuple[object, ...], tuple[object, ...], list[Row]]] = []
    for (key, sha256), members in by_content.items():
        members.sort(key=lambda r: (r[0].path, r[0].arch, r[0].origin, r[1].sha256))
        members.sort(key=lambda r: r[1].release_order, reverse=True)
        members.sort(key=lambda r: (_trust(r[1]), not r[1].sealed))
        best, record = members[0]
        first = min((r.finished, r.sha256) for _, r in members if (r.trust, r.sealed) == (record.trust, record.sealed))
        level = (
            sha256 != preferred,
            _trust(record),
            not record.sealed,
            key.extractor != OWN_EXTRACTOR,
            -key.revision,
            key.extractor,
        )
        family = (*level, best.code or sha256)
        families[family] = min(first, families.get(family, first))
        ranked.append((family, (-(best.symbols or 0), first, sha256), members))
    ranked.sort(key=lambda c: (c[0][:6], families[c[0]], c[0], c[1]))
    return [members for _, _, members in ranked]


def _flatten(contents: Iterable[list[Row]]) -> list[Occurrence]:
    """Return the occurrences of one slot; a content that contradicts the first of its key is a rival."""
    heads: dict[ImageKey, Occurrence] = {}
    result = []
    for members in contents:
        head = heads.setdefault(members[0][0].key, members[0][0])
        for occurrence, _ in members:
            twin = occurrence.sha256 == head.sha256 or _stripped(occurrence, head)
            result.append(occurrence if twin else replace(occurrence, rival=True))
    return result


def _stripped(one: Occurrence, other: Occurrence) -> bool:
    """Return whether two contents are the same code with more and with less of its symbol table."""
    return bool(one.code) and one.code == other.code and one.symbols != other.symbols
