"""A library that is damaged at random never passes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import zstandard
from typer.testing import CliRunner

from symcache.cli.app import application
from symcache.model import HarvestRecord
from tests.verify.releases import BUILD, Workshop

app = application("verify")

SEEDS = range(30)


def blobs_in_use(w: Workshop) -> list[Path]:
    record = w.records()[BUILD]
    return [w.blob(sha) for sha in sorted({o.sha256 for o in (*record.objects, *record.cache_files)})]


def flip(w: Workshop, rng: random.Random) -> str:
    blob = rng.choice(blobs_in_use(w))
    data = bytearray(blob.read_bytes())
    content = zstandard.decompress(data)
    while True:
        at = rng.randrange(18, len(data))  # behind the frame's header, some bits of which mean nothing
        data[at] ^= 1 << rng.randrange(8)
        try:
            same = zstandard.decompress(bytes(data)) == content
        except zstandard.ZstdError:
            same = False
        if not same:
            blob.write_bytes(data)
            return f"bit flipped at {at} of {blob.name}"


def cut(w: Workshop, rng: random.Random) -> str:
    blob = rng.choice(blobs_in_use(w))
    length = rng.randrange(blob.stat().st_size)
    blob.write_bytes(blob.read_bytes()[:length])
    return f"{blob.name} cut to {length} bytes"


def zeroed(w: Workshop, rng: random.Random) -> str:
    blob = rng.choice(blobs_in_use(w))
    blob.write_bytes(bytes(blob.stat().st_size))
    return f"{blob.name} is all zeros"


def lost(w: Workshop, rng: random.Random) -> str:
    blob = rng.choice(blobs_in_use(w))
    blob.unlink()
    return f"{blob.name} lost"


def exchanged(w: Workshop, rng: random.Random) -> str:
    one, other = rng.sample(blobs_in_use(w), 2)
    one.write_bytes(other.read_bytes())
    return f"{one.name} holds {other.name}"


def record_damaged(w: Workshop, rng: random.Random) -> str:
    path = rng.choice(sorted((w.location / "records").rglob("*.zst")))
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    at = rng.randrange(20, len(data))
    data[at] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return f"bit flipped at {at} of {path.name}"


def record_lost(w: Workshop, rng: random.Random) -> str:
    path = rng.choice(sorted((w.location / "records").rglob("*.zst")))
    path.unlink()
    return f"{path.name} lost"


def entry_dropped(w: Workshop, rng: random.Random) -> str:
    field = rng.choice(["objects", "manifest"])

    def change(record: HarvestRecord) -> HarvestRecord:
        entries = list(getattr(record, field))
        del entries[rng.randrange(len(entries))]
        return record.model_copy(update={field: tuple(entries)})

    w.rewrite(change)
    return f"an entry dropped from {field}"


def entry_changed(w: Workshop, rng: random.Random) -> str:
    changes: dict[str, Any] = rng.choice(
        [
            {"uuid": UUID(int=rng.getrandbits(128))},
            {"arch": "armv7"},
            {"path": "/usr/lib/elsewhere.dylib"},
            {"size": 12345},
            {"sha256": f"{rng.getrandbits(256):064x}"},
            {"cache_uuid": UUID(int=rng.getrandbits(128))},
        ]
    )

    def change(record: HarvestRecord) -> HarvestRecord:
        entries = list(record.objects)
        at = rng.randrange(len(entries))
        entries[at] = entries[at].model_copy(update=changes)
        return record.model_copy(update={"objects": tuple(entries)})

    w.rewrite(change)
    return f"an object changed: {changes}"


DAMAGES = (flip, flip, cut, zeroed, lost, exchanged, record_damaged, record_lost, entry_dropped, entry_changed)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_damage_always_ends_with_exit_1(workshop: Workshop, seed: int) -> None:
    rng = random.Random(seed)
    for file in workshop.location.glob("catalog*"):
        file.unlink()
    what = rng.choice(DAMAGES)(workshop, rng)
    arguments = ["verify", BUILD, "--level", "bytes", "--library", str(workshop.location)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1, f"seed {seed}: {what}: {result.output}"


def test_undamaged_it_ends_with_exit_0(workshop: Workshop) -> None:
    arguments = ["verify", BUILD, "--level", "bytes", "--library", str(workshop.location)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
