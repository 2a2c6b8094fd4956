"""Machines, SSH sessions, and getting the files of a macOS release out of a source."""

from vm_provisioning.harvest import CacheSummary, Extractor, HarvestProgress, HarvestResult, harvest
from vm_provisioning.hostkeys import HostKeyTrust
from vm_provisioning.places import DEFAULT_ROOTS
from vm_provisioning.sources import DirectorySource, Source, SshSource
from vm_provisioning.ssh import Login, SshSession, SshTarget, Timeouts

__all__ = [
    "DEFAULT_ROOTS",
    "CacheSummary",
    "DirectorySource",
    "Extractor",
    "HarvestProgress",
    "HarvestResult",
    "HostKeyTrust",
    "Login",
    "Source",
    "SshSession",
    "SshSource",
    "SshTarget",
    "Timeouts",
    "harvest",
]
