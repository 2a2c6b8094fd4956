"""Pages that are tables of what the code lists: findings, catalog, metrics, exit codes, public names."""

from __future__ import annotations

import importlib
import re
import sys
from typing import Any

from prometheus_client import Counter, Gauge, Histogram
from sqlite_utils import Database

from symcache import errors
from symcache.catalog import schema
from symcache.errors import EXIT_CODES, SymcacheError
from symcache.library import FsckCode
from symcache.verify import FindingCode
from symcache.verify.findings import NEXT_STEP
from symcache_server.http import metrics
from tests.reference.docstrings import attribute_docs, first_sentence, module_docs
from tests.reference.errors import UndescribedError
from tests.reference.markdown import code, page, table

__all__ = ["PUBLIC", "catalog_page", "exit_codes_page", "findings_page", "metrics_page", "python_page"]

PUBLIC = (
    "symcache.library",
    "symcache.client",
    "symcache.resolve",
    "symcache.dump",
    "symcache.dump.capture",
    "symcache.reports",
    "symcache.symbolicate",
    "symcache.verify",
    "symcache.dyld",
    "symcache.macho",
    "symcache.images",
    "symcache.model",
    "symcache.errors",
    "symcache_provisioning",
    "symcache_server",
)
"""What is imported by who uses symcache as a library, from what one begins with to what it stands on."""
_COMMAND = re.compile(r"symcache \w+(?: --[\w-]+)*")


def findings_page() -> str:
    """Return the page of codes that `verify` and `fsck` print."""
    docs = attribute_docs(FindingCode)
    rows = []
    for found in FindingCode:
        if found.name not in docs or found not in NEXT_STEP or not found.where:
            where = "FindingCode and NEXT_STEP of symcache/verify/findings.py"
            raise UndescribedError(f"the finding {found.value}", where)
        seen = ", ".join(code(where) for where in found.where)
        step = NEXT_STEP[found] if "`" in NEXT_STEP[found] else _COMMAND.sub(r"`\g<0>`", NEXT_STEP[found])
        rows.append([code(found.value), seen, docs[found.name], step])
    fsck = attribute_docs(FsckCode)
    for one in FsckCode:
        if one.name not in fsck:
            raise UndescribedError(f"the finding {one.value}", "FsckCode of symcache/library/fsck.py")
    return page(
        "Findings",
        "Codes never change their meaning; more may be added. Each finding's message ends with the next step.",
        "## Of symcache verify",
        "[Levels, waivers and verdicts](../verify.md). A code is looked for at its level and at those behind it, or"
        " with its option.",
        table(["code", "at", "means", "next step, unless the message says another"], rows),
        "## Of symcache fsck",
        "[What it looks at](../library.md#looking-after-it).",
        table(["code", "means"], [[code(one.value), fsck[one.name]] for one in FsckCode]),
    )


def catalog_page() -> str:
    """Return the page of the catalog's views and tables, as SQLite has them."""
    database = Database(memory=True)
    schema.create(database)
    texts = dict(re.findall(r"^``(\w+)``\s+(.+)$", schema.__doc__ or "", re.MULTILINE))
    parts = []
    for kind, names in (("View", database.view_names()), ("Table", database.table_names())):
        rows = []
        for name in sorted(names) if kind == "Table" else names:
            if name not in texts:
                raise UndescribedError(f"the catalog's {kind.lower()} {name}", "the docstring of catalog/schema.py")
            text = texts[name].replace("``", "`")
            rows.append([code(name), text[0].upper() + text[1:], ", ".join(code(c) for c in _columns(database, name))])
        parts += [f"## {kind}s", table([kind.lower(), "a row is", "columns"], rows)]
    return page(
        "Catalog",
        f"`catalog.db`, version {schema.SCHEMA_VERSION} (`PRAGMA user_version`):"
        " [how to open it](../library.md#the-catalog-for-other-tools). Views are for people and other tools; tables"
        " change with versions, and have UUIDs and hashes as BLOBs.",
        *parts,
    )


def _columns(database: Database, name: str) -> list[str]:
    return [row[1] for row in database.execute(f"PRAGMA table_info([{name}])").fetchall()]


def metrics_page() -> str:
    """Return the page of the server's metrics."""
    kinds: dict[type, str] = {Counter: "counter", Gauge: "gauge", Histogram: "histogram"}
    rows = []
    for metric in vars(metrics).values():
        if kind := kinds.get(type(metric)):
            (family,) = metric.describe()
            if not family.documentation:
                raise UndescribedError(f"the metric {family.name}", "symcache_server/http/metrics.py")
            name = family.name + ("_total" if kind == "counter" else "")
            labels = ", ".join(code(label) for label in metric._labelnames)
            rows.append([code(name), kind, labels, family.documentation])
    return page(
        "Metrics",
        "`/metrics` of `symcache serve`, in Prometheus' text format. Of a histogram there are `_bucket`, `_sum` and"
        " `_count`. What runs in one process tells Python's and the process's own as well (`python_…`, `process_…`)."
        " [What else tells how it fares](../server.md#running-it).",
        table(["metric", "type", "labels", "is"], sorted(rows)),
    )


def exit_codes_page() -> str:
    """Return the page of exit codes and of the errors that end with them."""
    classes = [getattr(errors, name) for name in errors.__all__]
    classes = [c for c in classes if isinstance(c, type) and c is not SymcacheError]
    parts = []
    for number, text in EXIT_CODES.items():
        ending = sorted(c.__name__ for c in classes if c.exit_code == number)
        parts.append([code(str(number)), text, ", ".join(map(code, ending))])
    return page(
        "Exit codes",
        "Errors are one sentence on standard error and the next step; `symcache --debug COMMAND` shows the traceback."
        " In Python they are exceptions of `symcache.errors`.",
        table(["code", "means", "exceptions"], parts),
        "## Exceptions",
        table(["class", "is raised for"], [[code(c.__name__), first_sentence(c.__doc__)] for c in classes]),
    )


def python_page() -> str:
    """Return the page of public names."""
    parts = []
    for name in PUBLIC:
        room = importlib.import_module(name)
        rows = [[code(public), _what(room, public)] for public in sorted(room.__all__, key=str.casefold)]
        parts += [f"## {name}", first_sentence(room.__doc__), table(["name", "is"], rows)]
    return page(
        "Python",
        "What `import` may take: what these modules have in `__all__`, and nothing else."
        " [Using it as a library](../library-api.md) has examples. Everything has types (`py.typed`), and docstrings"
        " that say units, shapes and errors.",
        *parts,
    )


def _what(room: Any, name: str) -> str:
    value = getattr(room, name)
    own = getattr(value, "__module__", "").startswith("symcache") and hasattr(value, "__qualname__")
    if own and (text := first_sentence(value.__doc__)):
        return text
    ours = [home for home in sys.modules if home.partition(".")[0].startswith("symcache")]
    # Where a constant is from, it does not tell: in its room, or else in one below.
    for home in sorted(ours, key=lambda home: (not f"{home}.".startswith(f"{room.__name__}."), home)):
        module = sys.modules[home]
        if vars(module).get(name) is value and (text := module_docs(module).get(name, "")):
            return text
    raise UndescribedError(f"{room.__name__}.{name}", "its docstring, or a string behind the constant")
