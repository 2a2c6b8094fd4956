"""AppleDB as it is published: real entries, and a year made of such.

What an entry holds follows AppleDB's schema (schemas/osFiles.json) and what its deploy.js adds to each; builds, dates,
links, sizes and hashes of `REAL` are those of the files it was made of.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

__all__ = ["REAL", "entries_of", "pack", "source", "year"]

_MACS = ["iMac21,1", "Mac13,1", "Mac14,2", "Mac14,8-Rack", "Mac17,9", "MacBookPro18,3", "Macmini9,1", "VirtualMac2,1"]


def source(
    kind: str, url: str, size: int | None, *, sha256: str = "", sha1: str = "", needs: str = "", **link: Any
) -> dict[str, Any]:
    """Return one source; `needs` is the build that an update is for."""
    hashes = {name: value for name, value in (("sha1", sha1), ("sha2-256", sha256)) if value}
    return {
        "type": kind,
        **({"prerequisiteBuild": needs} if needs else {}),
        "deviceMap": _MACS,
        "links": [{"url": url, "active": True, **link}],
        **({"hashes": hashes} if hashes else {}),
        **({"size": size} if size is not None else {}),
    }


REAL: list[dict[str, Any]] = json.loads(Path(__file__).with_suffix(".json").read_text())
"""Files of AppleDB: a release with its candidate, a beta, a Rapid Security Response, a security update that has no
firmware, a build that Macs came with, one of Apple's own, an old one, and one of another system."""


def entries_of(files: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what deploy.js makes of files: a list in which one build may stand more than once."""
    every = [dict(file) for file in files]
    for file in list(every):
        for duplicate in file.pop("createDuplicateEntries", ()):
            every.append({**file, **duplicate})
    for entry in every:
        entry.setdefault("deviceMap", _MACS)
        entry.setdefault("uniqueBuild", entry["build"])
        entry["key"] = f"{entry['osStr']};{entry['uniqueBuild']}"
        entry["beta"], entry["rc"] = entry.get("beta", False), entry.get("rc", False)
        entry.setdefault("released", "")
        entry["preinstalled"] = entry["deviceMap"] if entry.get("preinstalled") is True else []
        entry["osType"] = "macOS" if "OS X" in entry["osStr"] else entry["osStr"]
        entry["devices"] = {mac: {} for mac in entry["deviceMap"]}
        entry["appledburl"] = f"https://appledb.dev/firmware/{entry['osStr']}/{entry['uniqueBuild']}"
    return every


def pack(entries: Sequence[dict[str, Any]]) -> bytes:
    """Return a document as `main.json.xz` is."""
    return lzma.compress(json.dumps(entries).encode(), preset=0)


def year(seed: int, count: int = 60, *, host: str = "updates.cdn-apple.com") -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (day, file) of so many builds that come out in a year, first one first, as 2026's did.

    Three lines, betas of two, candidates that become releases days later, security updates without firmware, links that
    are put right later: a build may come more than once.
    """
    rng = random.Random(seed)
    for number in range(count):
        day = number * 360 // count
        darwin, major, letter = rng.choice([(24, 15, "G"), (25, 26, "ABCDEFG"[number % 7]), (26, 27, "AB"[number % 2])])
        beta = darwin > 24 and number % 3 == 0
        build = (
            f"{darwin}{letter}{5000 + number * 7 if beta else 100 + number * 7}{'abcdefg'[number % 7] if beta else ''}"
        )
        version = f"{major}.{number // 12}" + (f" beta {number}" if beta else "")
        file: dict[str, Any] = {
            "osStr": "macOS",
            "version": version,
            "build": build,
            "released": _date(day),
            "beta": beta,
        }
        name = f"UniversalMac_{major}.{number // 12}_{build}_Restore.ipsw"
        url = f"https://{host}/2026/fullrestores/{number}/{name}"
        firmware = source("ipsw", url, 1 << 34, sha256=hashlib.sha256(build.encode()).hexdigest())
        update = source("ota", f"https://{host}/2026/{number}.aea", 1 << 34, decryptionKey="a2V5")
        file["sources"] = [update] if darwin == 24 else [firmware, update]
        if not beta and darwin > 24 and number % 5 == 1:
            yield day, {**file, "version": f"{version} RC", "rc": True}
            yield day + 5, file
        elif number % 7 == 2 and darwin > 24:  # as first written down: the link is wrong, and put right days later
            yield day, {**file, "sources": [source("ipsw", f"{url}.old", 1 << 34), update]}
            yield day + 3, file
        else:
            yield day, file


def _date(day: int) -> str:
    return f"2026-{day // 30 % 12 + 1:02}-{day % 28 + 1:02}"
