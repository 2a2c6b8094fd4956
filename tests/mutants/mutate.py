"""Small changes of a module's source, one at a time, as text: the rest of the file stays as it is."""

from __future__ import annotations

import ast
import copy
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Mutant", "mutants"]

_OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
}
_NOT_CODE = {"annotation", "returns", "decorator_list", "bases", "exc", "cause"}
"""Fields of nodes in which nothing is changed: what is said of an error is no promise that a number could break."""
_TALK = {"debug", "info", "warning", "error", "exception", "print"}
"""Names of calls that only tell people something."""

_Change = tuple[ast.expr | ast.stmt, str, str]
"""(What is changed, the text in its place, what the change is.)"""


@dataclass(frozen=True)
class Mutant:
    """One change of one module."""

    line: int
    text: str
    """The source line that is changed, stripped: what the change is known by when lines move."""
    mutation: str
    lines: frozenset[int]
    """Who executes one of these may notice."""
    source: str = field(repr=False)
    """The whole module, changed."""


def mutants(source: str) -> list[Mutant]:
    """Return the changes of a module, each once, in an order that has nothing to do with where they stand."""
    data, lines = source.encode(), source.encode().splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    made: dict[str, Mutant] = {}
    for node, after, mutation, noticed in _changes(ast.parse(source)):
        assert node.end_lineno is not None and node.end_col_offset is not None
        begin, end = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
        changed = b"".join((data[:begin], after.encode(), data[end:])).decode()
        text = lines[node.lineno - 1].decode().strip()
        made.setdefault(changed, Mutant(node.lineno, text, mutation, noticed, changed))
    return sorted(made.values(), key=lambda m: hashlib.sha256(f"{m.text}\n{m.mutation}".encode()).digest())


def _changes(module: ast.Module) -> Iterator[tuple[*_Change, frozenset[int]]]:
    """Yield the changes of a module, and lines that show them: of its limits, and in its functions and classes."""
    parents = {child: parent for parent in ast.walk(module) for child in ast.iter_child_nodes(parent)}
    for statement in module.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for change in _inside(statement):
                yield *change, _lines(change[0], parents)
        elif isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value and _is_number(statement.value):
            target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
            users = [n for n in ast.walk(module) if isinstance(n, ast.Name) and n.id == ast.unparse(target)]
            noticed = frozenset[int]().union(*(_lines(user, parents) for user in users))
            whole = type(eval(compile(ast.Expression(statement.value), "", "eval"), {})) is int
            for operator, factor in (("*", "* 1000"), ("//" if whole else "/", "/ 1000")):
                after = f"({ast.unparse(statement.value)}) {operator} 1000"
                yield statement.value, after, factor, noticed


def _lines(node: ast.expr | ast.stmt, parents: dict[ast.AST, Any]) -> frozenset[int]:
    """Return the lines that execute a node: what is defined with a function or a class is noticed all over it."""
    statement: Any = node
    while not isinstance(statement, ast.stmt):
        statement = parents[statement]
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    if isinstance(parents[statement], ast.ClassDef) and not isinstance(statement, functions):
        statement = parents[statement]
    if isinstance(statement, functions | ast.ClassDef):
        return frozenset(range(statement.lineno, statement.end_lineno + 1))
    return frozenset({node.lineno, statement.lineno})


def _is_number(node: ast.expr) -> bool:
    """Return whether an expression is a number as a person writes it: `1 << 20`."""
    if isinstance(node, ast.BinOp):
        return _is_number(node.left) and _is_number(node.right)
    return isinstance(node, ast.Constant) and type(node.value) in {int, float}


def _inside(node: ast.AST, only: bool = False) -> Iterator[_Change]:
    """Yield the changes in a node; `only` it is done where a condition holds, which is changed as well."""
    yield from ((place, after, what) for place, after, what in _of(node) if not (only and what == "left out"))
    if isinstance(node, ast.BinOp) and _is_number(node):
        return
    for name, value in ast.iter_fields(node):
        if name in _NOT_CODE:
            continue
        children = value if isinstance(value, list) else [value]
        alone = isinstance(node, ast.If) and name == "body" and len(children) == 1 and not node.orelse
        for child in children:
            if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr) and not _is_talk(child):
                yield from _inside(child, alone)


def _is_talk(node: ast.AST) -> bool:
    if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        return False
    called = node.value.func
    return (called.attr if isinstance(called, ast.Attribute) else ast.unparse(called)) in _TALK


def _of(node: ast.AST) -> Iterator[_Change]:
    """Yield the changes of one node itself: what is changed, the text in its place, what the change is."""
    match node:
        case ast.Compare(ops=[op]) | ast.BoolOp(op=op) | ast.BinOp(op=op) if type(op) in _OPERATORS:
            other, new = copy.copy(node), _OPERATORS[type(op)]()
            setattr(other, *(("ops", [new]) if isinstance(node, ast.Compare) else ("op", new)))
            yield node, f"({ast.unparse(other)})", f"{type(op).__name__} to {type(new).__name__}"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield node, f"({ast.unparse(operand)})", "not dropped"
        case ast.Constant(value=bool(value)):
            yield node, str(not value), f"{value} to {not value}"
        case ast.Constant(value=int() | float() as value):
            yield node, repr(value + 1), f"{value!r} + 1"
        case ast.Return(value=ast.expr() as value) if ast.unparse(value) != "None":
            yield node, "return None", "return None"
        case ast.Expr(value=ast.Yield() | ast.YieldFrom()):
            yield node, "if False: yield", "left out"  # and still a generator
        case ast.Expr(value=ast.Call() | ast.Await()) | ast.Raise() | ast.AugAssign() | ast.Delete():
            yield node, "pass", "left out"
        case ast.If(test=test) | ast.IfExp(test=test):
            yield test, "(True)", "if True"
            yield test, "(False)", "if False"
        case ast.While(test=test):
            yield test, "(False)", "while False"
        case ast.comprehension(ifs=tests):
            yield from ((test, "(True)", "if True") for test in tests)
        case ast.Break():
            yield node, "continue", "break to continue"
        case ast.Continue():
            yield node, "break", "continue to break"
