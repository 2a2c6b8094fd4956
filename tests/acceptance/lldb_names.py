"""Names of addresses in one image, by LLDB: run by the Python that can import it, by itself (see symbol_names.py).

Standard input is {"package_folder", "library", "finder", "file", "triple", "addresses"}, standard output a list of
[name, mangled name, address of the function] or null. Standard library only, Python 3.9.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from typing import Any


def main() -> None:
    request = json.load(sys.stdin)
    spec = importlib.util.spec_from_file_location("finder", request["finder"])
    assert spec is not None and spec.loader is not None
    finder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(finder)
    lldb: Any = finder.import_lldb(request["package_folder"], request["library"])
    debugger = lldb.SBDebugger.Create()
    debugger.HandleCommand("settings set symbols.enable-external-lookup false")
    target = debugger.CreateTarget(request["file"], request["triple"], "", False, lldb.SBError())
    names = []
    for address in request["addresses"]:
        symbol = target.ResolveFileAddress(address).GetSymbol()
        start = symbol.GetStartAddress().GetFileAddress()
        found = symbol.IsValid() and symbol.GetType() == lldb.eSymbolTypeCode and not symbol.IsSynthetic()
        names.append([symbol.GetName(), symbol.GetMangledName(), start] if found else None)
    json.dump(names, sys.stdout)
    sys.stdout.flush()
    lldb.SBDebugger.Destroy(debugger)


main()
