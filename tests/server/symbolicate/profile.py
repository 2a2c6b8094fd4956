"""A profile that was recorded and not symbolicated, in the Firefox Profiler's processed format.

Source: version 46 of it, as `fxprof-processed-profile` of mstange/samply writes it; newer profilers upgrade it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

__all__ = ["make_profile"]


def make_profile(name: str, uuid: UUID, stacks: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Return a profile of one thread with a sample for each stack, outermost first: offsets in one library."""
    frames = sorted({offset for stack in stacks for offset in stack})
    strings = [name, *map(hex, frames)]
    nodes: dict[tuple[int | None, int], int] = {}
    samples = []
    for stack in stacks:
        prefix: int | None = None
        for offset in stack:
            prefix = nodes.setdefault((prefix, frames.index(offset)), len(nodes))
        samples.append(prefix)
    count, zeros, nulls = len(frames), [0] * len(frames), [None] * len(frames)
    return {
        "meta": {
            "version": 24,
            "preprocessedProfileVersion": 46,
            "symbolicated": False,
            "product": "test",
            "interval": 1.0,
            "startTime": 0.0,
            "processType": 0,
            "debug": False,
            "pausedRanges": [],
            "markerSchema": [],
            "categories": [{"name": "Other", "color": "grey", "subcategories": ["Other"]}],
            "extensions": {"length": 0, "baseURL": [], "id": [], "name": []},
            "sampleUnits": {"time": "ms", "eventDelay": "ms", "threadCPUDelta": "µs"},
        },
        "libs": [
            {
                **dict.fromkeys(("name", "debugName", "path", "debugPath"), name),
                "breakpadId": uuid.hex.upper() + "0",
                "codeId": None,
                "arch": "x86_64",
            }
        ],
        "pages": [],
        "counters": [],
        "profilerOverhead": [],
        "threads": [
            {
                "name": "main",
                "isMainThread": True,
                "pid": "1",
                "tid": "1",
                "processName": "test",
                "processType": "default",
                "processStartupTime": 0,
                "processShutdownTime": None,
                "registerTime": 0,
                "unregisterTime": None,
                "pausedRanges": [],
                "showMarkersInTimeline": False,
                "stringArray": strings,
                "markers": {
                    "length": 0,
                    **{key: [] for key in ("category", "data", "endTime", "name", "phase", "startTime")},
                },
                "nativeSymbols": {"length": 0, "address": [], "functionSize": [], "libIndex": [], "name": []},
                "resourceTable": {"length": 1, "lib": [0], "name": [0], "host": [None], "type": [1]},
                "funcTable": {
                    "length": count,
                    "name": list(range(1, count + 1)),
                    "isJS": [False] * count,
                    "relevantForJS": [False] * count,
                    "resource": zeros,
                    **dict.fromkeys(("fileName", "lineNumber", "columnNumber"), nulls),
                },
                "frameTable": {
                    "length": count,
                    "address": frames,
                    "func": list(range(count)),
                    **dict.fromkeys(("inlineDepth", "category", "subcategory"), zeros),
                    **dict.fromkeys(("nativeSymbol", "innerWindowID", "implementation"), nulls),
                    **dict.fromkeys(("line", "column", "optimizations"), nulls),
                },
                "stackTable": {
                    "length": len(nodes),
                    "prefix": [prefix for prefix, _ in nodes],
                    "frame": [frame for _, frame in nodes],
                    **{key: [0] * len(nodes) for key in ("category", "subcategory")},
                },
                "samples": {
                    "length": len(samples),
                    "stack": samples,
                    "time": [float(number) for number in range(len(samples))],
                    "weight": [1] * len(samples),
                    "weightType": "samples",
                    "threadCPUDelta": [0] * len(samples),
                },
            }
        ],
    }
