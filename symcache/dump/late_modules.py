"""Modules of a dump that are fetched once it is open: LLDB walks through one, or its user asks for one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from symcache.dump.lldb_child.protocol import FetchedModules, ModulePlan
from symcache.dump.loader import LoadedDump, file_name, load_module, plan_of
from symcache.dump.module_files import noted_sources
from symcache.dump.placeholders.symbols_only import image_layout
from symcache.dump.placeholders.writer import Placeholders
from symcache.errors import SymcacheError
from symcache.kinds import Kind

__all__ = ["LateModules"]

_NAMED = 3
"""Modules whose names are told."""


class LateModules:
    """Fetches modules of a dump that were deferred. `loaded` is the dump with what has been fetched since."""

    def __init__(self, loaded: LoadedDump, scratch: Path, problems: Sequence[str] = ()) -> None:
        """`problems` is where the resolver says which servers it cannot use."""
        self.loaded = loaded
        self._scratch, self._problems = scratch, problems

    def fetch(self, numbers: Sequence[int], why: str) -> FetchedModules:
        """Return what there is of modules, by their numbers in the dump, now. Raises SymcacheError, OSError."""
        modules = self.loaded.modules
        wanted = [n for n in dict.fromkeys(numbers) if 0 <= n < len(modules) and modules[n].deferred]
        if not wanted or self.loaded.files is None:
            return FetchedModules()
        before = len(self._problems)
        uuids = [uuid for n in wanted if (uuid := modules[n].module.uuid)]
        self.loaded.files.fetch(uuids, f"fetching {self._names(wanted)}, {why}")
        return self._take(wanted, "; ".join(self._problems[before:]))

    def fetch_at_prompt(self, numbers: Sequence[int], why: str) -> FetchedModules:
        """As `fetch`, but an error is told as the problem that it is: the user goes on with what there is."""
        try:
            return self.fetch(numbers, why)
        except KeyboardInterrupt:
            return FetchedModules(problem="interrupted; what has arrived is kept, and the rest can be requested again")
        except (SymcacheError, OSError) as error:
            return FetchedModules(problem=str(error))

    def _names(self, numbers: Sequence[int]) -> str:
        if len(numbers) > _NAMED:
            return f"{len(numbers)} modules"
        return ", ".join(self.loaded.modules[n].module.name for n in numbers)

    def _take(self, numbers: Sequence[int], problem: str) -> FetchedModules:
        loaded = self.loaded
        files = loaded.files.files if loaded.files else {}
        header, dump = loaded.header, loaded.dump
        sizes = [m.text_size for m in loaded.modules]
        layouts = {n: layout for n in numbers if (layout := image_layout(dump, header, sizes, n, files))}
        # No thread is in them, so nothing depends on whether a placeholder is executable.
        placeholders = Placeholders(dump.core.cputype, header.modules, sizes, layouts, frozenset(), ())
        modules = list(loaded.modules)
        plans: dict[int, ModulePlan] = {}
        for number in numbers:
            if not any((modules[number].module.uuid, kind) in files for kind in Kind):
                # What could not be had may be had later; what nobody has keeps its placeholder.
                modules[number] = replace(modules[number], deferred=bool(problem))
                continue
            place = self._scratch / f"modules-fetched-{number}" / file_name(header.modules[number])
            place.parent.mkdir(exist_ok=True)
            modules[number] = load_module(number, header.modules[number], sizes[number], files, placeholders, place)
            plans[number] = plan_of(modules[number], place)
        dsyms = [(m.module.uuid, m.debug_info) for n in plans if (m := modules[n]).debug_info and m.module.uuid]
        source_map = tuple(noted_sources(dsyms))
        plan = replace(
            loaded.plan,
            modules=tuple(plans.get(n, planned) for n, planned in enumerate(loaded.plan.modules)),
            source_map=(*loaded.plan.source_map, *source_map),
        )
        self.loaded = replace(loaded, modules=tuple(modules), plan=plan)
        return FetchedModules(tuple(plans.items()), source_map, problem)
