"""Modes that bind root, too: tests may run as root, whom no mode keeps out of a folder."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

__all__ = ["bound_by_modes", "bound_command"]

_VERSION_3 = 0x20080522
_OVERRIDE = 1 << 1 | 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH (linux/capability.h)."""
_SET_PRIVILEGES = "setpriv"


@contextmanager
def bound_by_modes() -> Iterator[None]:
    """Have this thread obey modes as anybody else does."""
    if os.geteuid() != 0:
        yield
        return
    if not sys.platform.startswith("linux"):
        pytest.skip("modes do not bind root here")
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then the same of capabilities from 32 on

    def call(function: str) -> None:
        if getattr(libc, function)(header, sets):
            raise OSError(ctypes.get_errno(), function)

    call("capget")
    effective = sets[0]
    sets[0] = effective & ~_OVERRIDE
    call("capset")
    try:
        yield
    finally:
        sets[0] = effective
        call("capset")


def bound_command(program: str) -> str:
    """Return the command that starts a program which obeys modes as anybody else does."""
    if os.geteuid() != 0:
        return program
    setpriv = shutil.which(_SET_PRIVILEGES)
    if setpriv is None:
        pytest.skip("not installed: setpriv (apt-get install util-linux)")
    return f"{setpriv} --inh-caps=-all --bounding-set=-dac_override,-dac_read_search {program}"
