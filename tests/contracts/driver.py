"""Runs commands of symcache one after the other in one process: starting a Python for each takes most of the time.

A line of standard input is a JSON list of arguments; a line of standard output is what came of `symcache` with them,
as a list of exit code, standard output and standard error. A program of its own: the Python that runs it says which
version is meant.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import sys
import traceback


def main() -> None:
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)  # whatever else is printed is no answer
        for line in sys.stdin:
            sys.argv = ["symcache", *json.loads(line)]
            code: object = 0
            out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    runpy.run_module("symcache", run_name="__main__")
                except SystemExit as ended:
                    code = ended.code or 0
                except Exception:
                    traceback.print_exc()
                    code = "crashed"
            said = [stream.buffer.getvalue().decode() for stream in (out, err)]
            answers.write(json.dumps([code, *said]) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
