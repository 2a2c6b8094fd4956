"""The files that run under other Pythons, Xcode's among them."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import symcache

WORKERS = ("finder", "worker", "worker_commands", "worker_modules", "worker_target")
FILES = ["text.py", "confined/inside.py", "dump/lldb_command/session.py"]
FILES += [f"dump/lldb_child/{name}.py" for name in WORKERS]


@pytest.mark.parametrize("file", FILES)
def test_python_3_9_without_packages_is_enough(file: str) -> None:
    source = Path(symcache.__file__).parent / file
    tree = ast.parse(source.read_text(), feature_version=(3, 9))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom)) and not getattr(node, "level", 0)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names])
    }
    assert imported <= sys.stdlib_module_names | {"lldb"}
    assert any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
