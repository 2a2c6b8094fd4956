"""Machines, SSH sessions, and getting the files of a macOS release out of a source."""

from vm_provisioning.available import AvailableRelease, available_releases
from vm_provisioning.directory_source import DirectorySource
from vm_provisioning.doctor import Check, Verdict, examine
from vm_provisioning.drivers import DRIVERS, Driver, MachineState, make_driver
from vm_provisioning.entries import Limits
from vm_provisioning.harvest import Extractor, harvest
from vm_provisioning.hostkeys import HostKeyTrust
from vm_provisioning.interrupts import Interrupts
from vm_provisioning.inventory import Inventory, MachineDefinition
from vm_provisioning.ipsw_source import IpswSource
from vm_provisioning.login import Login, SshTarget, Timeouts
from vm_provisioning.machine import GUEST_LIMIT, Machine
from vm_provisioning.places import DEFAULT_ROOTS
from vm_provisioning.provision import Outcome, Provisioner, Step, remote_login_out_of_band
from vm_provisioning.results import CacheSummary, HarvestProgress, HarvestResult
from vm_provisioning.runs import Run, RunStore
from vm_provisioning.sources import Source
from vm_provisioning.ssh import SshSession
from vm_provisioning.ssh_source import SshSource
from vm_provisioning.strays import Stray, strays

__all__ = [
    "DEFAULT_ROOTS",
    "DRIVERS",
    "GUEST_LIMIT",
    "AvailableRelease",
    "CacheSummary",
    "Check",
    "DirectorySource",
    "Driver",
    "Extractor",
    "HarvestProgress",
    "HarvestResult",
    "HostKeyTrust",
    "Interrupts",
    "Inventory",
    "IpswSource",
    "Limits",
    "Login",
    "Machine",
    "MachineDefinition",
    "MachineState",
    "Outcome",
    "Provisioner",
    "Run",
    "RunStore",
    "Source",
    "SshSession",
    "SshSource",
    "SshTarget",
    "Step",
    "Stray",
    "Timeouts",
    "Verdict",
    "available_releases",
    "examine",
    "harvest",
    "make_driver",
    "remote_login_out_of_band",
    "strays",
]
