"""The strings that stand behind fields, members and constants: no program sees them, only readers of the source."""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from itertools import pairwise
from types import ModuleType

__all__ = ["attribute_docs", "first_sentence", "module_docs", "one_line"]


def attribute_docs(cls: type) -> dict[str, str]:
    """Return the string behind each field or member of a class, those of its bases included."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("symcache"):
            (defined,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
            assert isinstance(defined, ast.ClassDef)
            docs |= _behind(defined.body)
    return docs


@cache
def module_docs(module: ModuleType) -> dict[str, str]:
    """Return the string behind each constant of a module."""
    return _behind(ast.parse(inspect.getsource(module)).body)


def _behind(body: list[ast.stmt]) -> dict[str, str]:
    docs = {}
    for statement, after in pairwise(body):
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            targets = statement.targets if isinstance(statement, ast.Assign) else []
            targets = [statement.target] if isinstance(statement, ast.AnnAssign) else targets
            targets = [one for t in targets for one in (t.elts if isinstance(t, ast.Tuple) else [t])]
            docs.update({t.id: one_line(after.value.value) for t in targets if isinstance(t, ast.Name)})
    return docs


def one_line(text: str | None) -> str:
    """Return a text on one line."""
    return " ".join((text or "").split())


def first_sentence(text: str | None) -> str:
    """Return the first paragraph of a docstring on one line."""
    return one_line(inspect.cleandoc(text or "").partition("\n\n")[0])
