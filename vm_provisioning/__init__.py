"""Machines, SSH sessions, and getting the files of a macOS release out of a source."""

from vm_provisioning.directory_source import DirectorySource
from vm_provisioning.entries import Limits
from vm_provisioning.harvest import Extractor, harvest
from vm_provisioning.hostkeys import HostKeyTrust
from vm_provisioning.ipsw_source import IpswSource
from vm_provisioning.login import Login, SshTarget, Timeouts
from vm_provisioning.places import DEFAULT_ROOTS
from vm_provisioning.results import CacheSummary, HarvestProgress, HarvestResult
from vm_provisioning.sources import Source
from vm_provisioning.ssh import SshSession
from vm_provisioning.ssh_source import SshSource

__all__ = [
    "DEFAULT_ROOTS",
    "CacheSummary",
    "DirectorySource",
    "Extractor",
    "HarvestProgress",
    "HarvestResult",
    "HostKeyTrust",
    "IpswSource",
    "Limits",
    "Login",
    "Source",
    "SshSession",
    "SshSource",
    "SshTarget",
    "Timeouts",
    "harvest",
]
