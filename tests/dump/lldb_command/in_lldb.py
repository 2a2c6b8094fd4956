"""Gives LLDB commands: run by Python with the wheel, imported by the LLDB of a system. Nothing of ours is in it.

The environment says which commands (RUN_COMMANDS, a list in JSON), and which file what they print goes to (RUN_OUTPUT).
"""

import json
import os

import lldb


def __lldb_init_module(debugger, _session):  # type: ignore[no-untyped-def]
    debugger.SetAsync(False)
    with open(os.environ["RUN_OUTPUT"], "w", encoding="utf-8", errors="replace") as output:  # noqa: PTH123
        for command in json.loads(os.environ["RUN_COMMANDS"]):
            result = lldb.SBCommandReturnObject()
            # In an older LLDB, all commands would be about what the one that runs this was about.
            thread = debugger.GetSelectedTarget().GetProcess().GetSelectedThread()
            context = [lldb.SBExecutionContext(thread)] if thread.IsValid() else []
            debugger.GetCommandInterpreter().HandleCommand(command, *context, result)
            output.write((result.GetOutput() or "") + (result.GetError() or "") + "\n")


if __name__ == "__main__":
    __lldb_init_module(lldb.SBDebugger.Create(True), {})  # True: reads ~/.lldbinit
