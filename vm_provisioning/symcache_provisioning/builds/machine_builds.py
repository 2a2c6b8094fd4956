"""What the machines of an inventory run."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from symcache.errors import SymcacheError
from symcache_provisioning.builds.assessment import MachineBuild
from symcache_provisioning.machines.inventory import MachineDefinition
from symcache_provisioning.machines.life_cycle import Machine

__all__ = ["machine_builds"]


def machine_builds(
    definitions: Iterable[MachineDefinition], announce: Callable[[str], None], *, trust_new: bool = False
) -> list[MachineBuild]:
    """Return the build of each machine: as the inventory says, else as the machine does, and its model then.

    A machine that is not up is brought up to be asked, and taken down again.
    """
    result = []
    for definition in definitions:
        if definition.build is not None:
            result.append(MachineBuild(definition.name, definition.build))
            continue
        try:
            with Machine(definition, announce=announce).source(trust_new=trust_new) as source:
                result.append(MachineBuild(definition.name, source.identity().build, source.host()))
        except SymcacheError as error:
            hint = f": {error.hint}" if error.hint else ""
            result.append(MachineBuild(definition.name, error=f"{error}{hint}"))
    return result
