"""Asking the catalog as people do: by parts of names, a page of a release at a time, what came when."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from uuid import UUID

from symcache.catalog.lookup import Lookup
from symcache.catalog.ranking import TRUSTS
from symcache.catalog.rows import Growth, Harvest, Listing, Occurrence, PathSummary, StoredSize
from symcache.model import Kind, ReleaseId

__all__ = ["MOST_PATHS", "Browse", "ImageOrder"]

_MATCHES = 400
"""Names that are ranked; what lies behind the shortest of so many is not what somebody meant."""
MOST_PATHS = 200
"""That are looked at for a part of a name: what lies behind the shortest of so many is not what somebody meant."""
_COMMON, _MOST_PARTS, _LIKE = 2, 40, 200
"""Characters that similar names have in common somewhere, how many such are looked for, and names that are compared."""


class ImageOrder(StrEnum):
    """What the images of a release can be sorted by."""

    PATH = "path"
    NAME = "name"
    ARCH = "arch"
    KIND = "kind"
    SIZE = "size"
    UUID = "uuid"


_ORDERS = {
    ImageOrder.PATH: "p.path",
    ImageOrder.NAME: "p.name COLLATE NOCASE",
    ImageOrder.ARCH: "l.arch",
    ImageOrder.KIND: "l.kind",
    ImageOrder.SIZE: "max(o.size)",
    ImageOrder.UUID: "o.uuid",
}


class Browse(Lookup):
    """What pages for people show. Reading is bounded by what is shown, not by what is held."""

    def paths_like(self, words: Sequence[str], limit: int) -> list[PathSummary]:
        """Return the paths of live images that have all `words` in them, in any case: best names first.

        A name that is the words comes first, then those that begin so, then the shortest. Only where not enough names
        have all of them, folders are looked at, too.
        """
        if not words:
            return []
        found = self._summaries(self._matching("name", words), words, limit)
        if len(found) < limit:
            known = {one.path for one in found}
            more = self._summaries(self._matching("path", words), words, limit)
            found += [one for one in more if one.path not in known]
        return found[:limit]

    def by_part(
        self,
        text: str,
        limit: int,
        *,
        kind: Kind | None = None,
        build: str | None = None,
        cache: UUID | None = None,
        arch: str | None = None,
    ) -> list[Occurrence]:
        """Return the contents whose name has all words of `text` in it, in any case, or fits it as a glob.

        With a `/` it is the path that has. Names that are the text come first, then those that begin so; of equals,
        the newest releases. At most `limit`, of the `MOST_PATHS` shortest paths.
        """
        column = "path" if "/" in text else "name"
        if any(c in text for c in "*?["):
            meant: tuple[str, Sequence[str]] = f"lower({column}) GLOB lower(?)", [text]
        elif words := text.split():
            meant = _has_all(column, words)
        else:
            return []
        order = f"length({column}), path"
        found = self._at_paths(meant, order, MOST_PATHS, kind=kind, build=build, cache=cache, arch=arch)
        wanted = text.lower()

        def goodness(image: Occurrence) -> tuple[bool, bool]:
            name = image.path.rpartition("/")[2].lower()
            return name != wanted and name.partition(".")[0] != wanted, not name.startswith(wanted)

        return sorted(found, key=goodness)[:limit]

    def similar_names(self, text: str, limit: int = 3) -> list[str]:
        """Return the names of images that are most like a text: what was meant, where that has a slip in it."""
        name = text.rpartition("/")[2].lower()
        parts = [name[n : n + _COMMON] for n in range(min(len(name) - _COMMON + 1, _MOST_PARTS))]
        if not parts:
            return []
        terms, likes = _has_each("name", parts)
        found = " + ".join(f"({term})" for term in terms)
        rows = self._all(
            f"SELECT DISTINCT name FROM (SELECT id, name, {found} AS common FROM paths) p WHERE common AND EXISTS"  # noqa: S608
            " (SELECT 1 FROM objects o JOIN records r ON r.id = o.record WHERE o.path = p.id AND r.live)"
            f" ORDER BY common DESC, length(name), name LIMIT {_LIKE}",
            likes,
        )
        by_lower = {row[0].lower(): row[0] for row in rows}
        stems = {lower.partition(".")[0]: lower for lower in reversed(by_lower)}
        close = difflib.get_close_matches(name, [*by_lower, *stems], 2 * limit, 0.7)
        return list(dict.fromkeys(by_lower.get(found) or by_lower[stems[found]] for found in close))[:limit]

    def _matching(self, column: str, words: Sequence[str]) -> list[tuple[int, str]]:
        where, patterns = _has_all(column, words)
        rows = self._all(
            f"SELECT id, {column} FROM paths WHERE {where} ORDER BY length({column}), {column} LIMIT {_MATCHES}",  # noqa: S608
            patterns,
        )
        return [(number, text) for number, text in rows]

    def _summaries(self, matches: Sequence[tuple[int, str]], words: Sequence[str], limit: int) -> list[PathSummary]:
        first, whole = words[0].lower(), " ".join(words).lower()

        def goodness(match: tuple[int, str]) -> tuple[bool, bool, bool]:
            name = match[1].rpartition("/")[2].lower()
            return name != whole and name.partition(".")[0] != whole, not name.startswith(first), first not in name

        ranked = [number for number, _ in sorted(matches, key=goodness)]
        found: list[PathSummary] = []
        # Of paths that only removed releases had, there may be some: a few more are looked at until there are enough.
        for start in range(0, len(ranked), limit):
            part = ranked[start : start + limit]
            rows = self._all(
                # Beside max(), SQLite gives r.build of the row that has it.
                "SELECT o.path, p.path, count(DISTINCT o.uuid), count(DISTINCT r.build), r.build, max(r.release_order)"
                " FROM objects o JOIN records r ON r.id = o.record JOIN paths p ON p.id = o.path"
                " WHERE o.path IN (SELECT value FROM json_each(?)) AND r.live GROUP BY o.path",
                [json.dumps(part)],
            )
            by_number = {row[0]: PathSummary(*row[1:5]) for row in rows}
            found += [by_number[number] for number in part if number in by_number]
            if len(found) >= limit:
                break
        return found[:limit]

    def images_of_release(
        self,
        release: ReleaseId,
        words: Sequence[str] = (),
        *,
        order: ImageOrder = ImageOrder.PATH,
        descending: bool = False,
        offset: int = 0,
        limit: int = 200,
    ) -> Listing:
        """Return a page of the images that are stored of a release: each once, whatever number of harvests has it."""
        where, patterns = _has_all("p.path", words) if words else ("1", [])
        direction = "DESC" if descending else "ASC"
        with self.one_moment():
            rows = self._all(
                "SELECT min(o.id), count(*) OVER () FROM objects o JOIN paths p ON p.id = o.path"  # noqa: S608
                " JOIN layouts l ON l.id = o.layout"
                " WHERE o.record IN (SELECT id FROM records WHERE live AND type = 'harvest' AND system = ?"
                f" AND build = ?) AND {where} GROUP BY o.path, o.uuid, l.arch, l.kind, l.cache_uuid"
                f" ORDER BY {_ORDERS[order]} {direction}, p.path, l.arch, l.kind LIMIT ? OFFSET ?",
                [*release, *patterns, limit, offset],
            )
            numbers = sorted(number for number, _ in rows)
            stored = self._rows("WHERE o.id IN (SELECT value FROM json_each(?)) ORDER BY o.id", [json.dumps(numbers)])
        if not rows:
            return Listing(self.images_of_release(release, words, limit=1).total if offset else 0, [])
        by_number = dict(zip(numbers, (occurrence for occurrence, _ in stored), strict=True))
        return Listing(rows[0][1], [by_number[number] for number, _ in rows])

    def harvests(self, limit: int, release: ReleaseId | None = None) -> list[Harvest]:
        """Return live records that stored something, the latest first, as the clocks of those who wrote them say."""
        where = "AND system = ? AND build = ?" if release else ""
        rows = self._all(
            "SELECT trust, product, version, extra, build, sealed, source, extractor, operator, started,"  # noqa: S608
            " finished, problems, images FROM records"
            f" WHERE live AND type = 'harvest' {where} ORDER BY finished DESC, sha256 LIMIT ?",
            [*(release or ()), limit],
        )
        return [
            Harvest(
                *(TRUSTS[trust], product, version, extra, build, bool(sealed), source),
                *(extractor, operator, started, finished, len(problems.splitlines()), images),
            )
            for trust, product, version, extra, build, sealed, source, extractor, operator, started, finished,
            problems, images in rows
        ]  # fmt: skip

    def records_by_release(self) -> Mapping[ReleaseId, tuple[str, ...]]:
        """Return the ids of the live harvests of each release: what is known of it changes only with them."""
        found: dict[ReleaseId, list[str]] = {}
        for *release, sha256 in self._all(
            "SELECT system, build, sha256 FROM records WHERE live AND type = 'harvest' AND build IS NOT NULL"
            " ORDER BY sha256"
        ):
            found.setdefault(ReleaseId(*release), []).append(sha256)
        return {release: tuple(ids) for release, ids in found.items()}

    def size_of_release(self, release: ReleaseId) -> StoredSize:
        """Return how much content a release has: different contents of images, and raw cache files."""
        mine = "record IN (SELECT id FROM records WHERE live AND type = 'harvest' AND system = ? AND build = ?)"
        counted = "SELECT count(*), coalesce(sum(size), 0) FROM (SELECT DISTINCT sha256, size FROM"
        images, files = (self._one(f"{counted} {table} WHERE {mine})", release) for table in ("objects", "cache_files"))
        return StoredSize(*images, *files)

    def growth(self) -> list[Growth]:
        """Return by day (UTC, as the records say) what content came then that was not there before."""
        rows = self._all(
            "SELECT day, sum(images), sum(caches) FROM ("
            " SELECT substr(min(r.finished), 1, 10) AS day, o.size AS images, 0 AS caches FROM objects o"
            " JOIN records r ON r.id = o.record WHERE r.live GROUP BY o.sha256"
            " UNION ALL SELECT substr(min(r.finished), 1, 10), 0, f.size FROM cache_files f"
            " JOIN records r ON r.id = f.record WHERE r.live GROUP BY f.sha256) GROUP BY day ORDER BY day"
        )
        return [Growth(*row) for row in rows if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", row[0])]


def _has_all(column: str, words: Sequence[str]) -> tuple[str, list[str]]:
    """Return a condition and its values: every word is somewhere in the text, in any case of ASCII."""
    terms, values = _has_each(column, words)
    return " AND ".join(terms), values


def _has_each(column: str, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return a condition for each word, and their values."""
    escaped = [re.sub(r"([\\%_])", r"\\\1", word) for word in words]
    return [f"{column} LIKE ? ESCAPE '\\'"] * len(words), [f"%{word}%" for word in escaped]
