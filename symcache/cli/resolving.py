"""Where the binaries of a dump come from: folders, then the library, then servers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from symcache.dump import ModuleResolver
