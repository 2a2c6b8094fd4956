"""Paths that LLDB takes: its Python module takes none that are no UTF-8."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from symcache.dump.lldb_child.protocol import FetchedModules, ModulePlan, Plan
from symcache.text import encodable

__all__ = ["Links"]


class Links:
    """Makes links in a folder to files whose paths are no UTF-8. Sources below such folders are left out."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of_plan(self, plan: Plan) -> Plan:
        """Return a plan with links."""
        modules = tuple(self._of_module(module) for module in plan.modules)
        return replace(
            plan, core=self._link(plan.core) or plan.core, source_map=_encodable(plan.source_map), modules=modules
        )

    def of_fetched(self, fetched: FetchedModules) -> FetchedModules:
        """Return a response with links."""
        modules = tuple((number, self._of_module(module)) for number, module in fetched.modules)
        return replace(fetched, modules=modules, source_map=_encodable(fetched.source_map))

    def _of_module(self, module: ModulePlan) -> ModulePlan:
        """Link the dSYM: the binary lies in a folder of ours, under a name that is UTF-8."""
        return replace(module, symbols=self._link(module.symbols))

    def _link(self, path: Path | None) -> Path | None:
        if path is None or _is_encodable(str(path)):
            return path
        self._folder.mkdir(exist_ok=True)
        place = self._folder / str(sum(1 for _ in self._folder.iterdir()))
        place.symlink_to(path)
        return place


def _encodable(pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple(pair for pair in pairs if all(map(_is_encodable, pair)))


def _is_encodable(text: str) -> bool:
    return encodable(text) == text
