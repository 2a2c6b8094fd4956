"""What is sent to a host means the same to whatever login shell an account has."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from symcache_provisioning.ssh.commands import START, command_line, without_login_output

ODD = ["it's", 'a "$HOME" `id`', "!! $! !", "\\n \\\\", "two\nlines\n", "tab\t*", "ä % %s \\0101", ""]


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("shell", ["sh", "bash", "zsh", "tcsh"])
def test_every_shell_passes_arguments_on_as_they_are(shell: str, watched: bool) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"not installed: {shell} (apt-get install {shell})")
    for argument in ODD:
        line = command_line(["/usr/bin/printf", "%s|", argument, "end"], watched=watched)
        with subprocess.Popen(
            [program, "-f", "-c", line] if shell == "tcsh" else [program, "-c", line],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdin
            process.stdin.write(START)
            process.stdin.flush()  # it stays open: a watched program is ended by its end
            assert process.stdout
            assert process.stdout.read() == f"{argument}|end|".encode()
            assert process.stderr
            assert without_login_output(process.stderr.read()) == b""


def test_what_is_said_where_no_program_starts_is_kept() -> None:
    assert without_login_output(b"This account is not available\n") == b"This account is not available\n"
