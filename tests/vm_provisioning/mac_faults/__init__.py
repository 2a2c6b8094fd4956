"""What can be wrong with a Mac, or on the way to it: each fault, how it is injected, and what must be said about it."""

from tests.vm_provisioning.mac_faults import disk, way
from tests.vm_provisioning.mac_faults.scene import FAULTS, Fault, Scene

__all__ = ["FAULTS", "Fault", "Scene", "disk", "way"]
