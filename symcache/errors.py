"""Every error that symcache raises on purpose.

::

    SymcacheError
    ├── UsageError            the request itself is wrong                     exit 2
    ├── NotFoundError         asked for something that nobody here has        exit 1
    ├── IncompleteError       done in part: what is missing is named          exit 1
    ├── IntegrityError        bytes are not what their name or record says    exit 1
    ├── FormatError           a file is not, or not wholly, what it must be   exit 1
    │   ├── MachOError
    │   ├── SharedCacheError
    │   └── DumpError
    └── EnvironmentFailure    the world did not play along                    exit 3
        ├── RemoteError       network, SSH, HTTP
        │   └── HostKeyError  the host is not known, or not the one we know
        ├── StorageError      disk, permission, object store
        └── DebuggerError     LLDB is missing, died, or ran out of time

A message names the thing, says what was expected, and `hint` says the next step. The command line prints
both and ends with `exit_code`; a library user catches the class.
"""

from __future__ import annotations

__all__ = [
    "EXIT_CODES",
    "DebuggerError",
    "DumpError",
    "EnvironmentFailure",
    "FormatError",
    "HostKeyError",
    "IncompleteError",
    "IntegrityError",
    "MachOError",
    "NotFoundError",
    "RemoteError",
    "SharedCacheError",
    "StorageError",
    "SymcacheError",
    "UsageError",
]

EXIT_CODES = {
    0: "Done; the answer is yes: complete, clean, there.",
    1: "The answer is no: nobody has it, the release is not complete, a file is not what it must be.",
    2: "Wrong use: an option, a URL, a path that does not exist.",
    3: "The environment failed: network, disk, permission, debugger.",
    130: "Interrupted, by Ctrl-C, SIGTERM or SIGHUP.",
}
"""What each exit code of a command means."""


class SymcacheError(Exception):
    """Root of the hierarchy: `str()` is one sentence, `hint` the next step or empty."""

    exit_code = 3

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(SymcacheError):
    """The request is contradictory or misspelt."""

    exit_code = 2


class NotFoundError(SymcacheError):
    """Nobody who was asked has it."""

    exit_code = 1


class IncompleteError(SymcacheError):
    """Part of the work is done; the rest could not be."""

    exit_code = 1


class IntegrityError(SymcacheError):
    """Content differs from what its hash, UUID or record promises."""

    exit_code = 1


class FormatError(SymcacheError):
    """Bytes that do not follow the format they claim."""

    exit_code = 1


class MachOError(FormatError):
    """A Mach-O or universal file that is cut, contradictory or absurd."""


class SharedCacheError(FormatError):
    """A dyld shared cache that is cut, contradictory or absurd, or lacks a companion."""


class DumpError(FormatError):
    """A crash dump whose container, header or core cannot be used."""


class EnvironmentFailure(SymcacheError):
    """Something outside the program did not work."""


class RemoteError(EnvironmentFailure):
    """A host or server could not be reached, or broke off."""


class HostKeyError(RemoteError):
    """An SSH host whose key is unknown or has changed."""


class StorageError(EnvironmentFailure):
    """A disk or object store refused: full, forbidden, gone."""


class DebuggerError(EnvironmentFailure):
    """LLDB is not installed, crashed, or did not finish in its time."""
