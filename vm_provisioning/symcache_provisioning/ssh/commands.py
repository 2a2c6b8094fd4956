"""Command lines of programs on a host, as sshd hands them to whatever login shell the account has."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

__all__ = ["GO", "command_line"]

GO = b"\n"
"""What has to be sent, or else the end of the input, before a program begins."""
_BEGIN = "LC_ALL=C; export LC_ALL; read -r go; "
"""Nothing begins there, and so nothing ends, before we say so. Else paramiko might send that our input ends when the
other side has closed the channel already, for which OpenSSH ends the whole connection.
"""
_WATCH = (
    'exec 3<&0; "$@" </dev/null 3<&- & tool=$!; { cat <&3; kill $tool; } >/dev/null 2>&1 & watch=$!;'
    " wait $tool; status=$?; kill $watch 2>/dev/null; exit $status"
)
"""Runs its arguments until they end, or our end of the input does: sshd signals nothing without a terminal."""


def command_line(argv: Sequence[str], *, watched: bool) -> str:
    """Return the command that runs `argv` in the C locale; `watched`: until the input ends, at most."""
    words = ["/bin/sh", "-c", _WATCH, "sh", *argv] if watched else argv
    # The login shell may be anything; all of them understand a single-quoted argument to /bin/sh.
    return f"/bin/sh -c {shlex.quote(f'{_BEGIN}exec {shlex.join(words)}')}"
