"""Every fuzz target takes its own seeds, cut short and with flipped bytes, without an error that is not ours."""

from __future__ import annotations

import importlib
import pkgutil
import random
from collections.abc import Callable
from typing import cast

import pytest

import tests.fuzz

TARGETS = sorted(m.name for m in pkgutil.iter_modules(tests.fuzz.__path__) if m.name.startswith("fuzz_"))


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_their_neighbours(name: str) -> None:
    module = importlib.import_module(f"tests.fuzz.{name}")
    seeds = cast("list[bytes]", module.SEEDS())
    one_input = cast("Callable[[bytes], None]", module.one_input)
    assert seeds, "a target without seeds finds nothing"
    chance = random.Random(name)
    for seed in [b"", *seeds[:6]]:
        one_input(seed)
        for _ in range(10):
            changed = bytearray(seed[: chance.randint(0, len(seed))] if chance.random() < 0.3 else seed)
            for _ in range(chance.randint(1, 4)):
                if changed:
                    changed[chance.randrange(len(changed))] = chance.randrange(256)
            one_input(bytes(changed))
