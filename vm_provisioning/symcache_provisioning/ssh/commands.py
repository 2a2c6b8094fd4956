"""Command lines for programs on a host, which sshd passes to whatever login shell the account has."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

__all__ = ["START", "command_line", "without_login_output"]

START = b"\n"
"""A program starts when this, or the end of its input, is received."""
_STARTED = "symcache: started"
_WAIT = f"LC_ALL=C; export LC_ALL; read -r go; echo '{_STARTED}' >&2; "
"""No program starts, and so none ends, before we have sent the start. Otherwise paramiko might send the end of the
input after the other side has closed the channel, for which OpenSSH closes the whole connection. A line on stderr
then separates what the program says from what the login shell said as it started (~/.zshenv, ~/.bashrc). To stdout that
may write nothing: it breaks SFTP, too.
"""
_WATCH = (
    'exec 3<&0; "$@" </dev/null 3<&- & tool=$!; { cat <&3; kill $tool; } >/dev/null 2>&1 & watch=$!;'
    " wait $tool; status=$?; kill $watch 2>/dev/null; exit $status"
)
"""Runs its arguments until they end or their input is closed: without a terminal sshd sends no signal."""


_PLAIN = re.compile(r"[^A-Za-z0-9 ./_=-]")


def command_line(argv: Sequence[str], *, watched: bool) -> str:
    """Return the command that runs `argv` in the C locale; if `watched`, it is killed when its input is closed."""
    arguments = ["/bin/sh", "-c", _WATCH, "sh", *argv] if watched else argv
    text = f"{_WAIT}exec {shlex.join(arguments)}"
    # The login shell may be anything; all of them understand a single-quoted argument to /bin/sh. But between the
    # quotes, too, csh takes `!` as its own, and wants line ends in a way that others do not understand.
    if "\n" in text:
        spelt = _PLAIN.sub(lambda special: "".join(f"\\0{byte:03o}" for byte in special[0].encode()), text)
        return f"""/bin/sh -c 'eval "$(printf %b "{spelt}")"'"""
    return "/bin/sh -c " + shlex.quote(text).replace("!", r"'\!'")


def without_login_output(stderr: bytes) -> bytes:
    """Return what the program of a `command_line` printed to stderr, without what the login shell did before."""
    before, started, after = stderr.partition(f"{_STARTED}\n".encode())
    return after if started else before
