"""Harvesting macOS releases from machines, folders and restore images; and the machines themselves."""

from symcache_provisioning.available_releases import available_releases
from symcache_provisioning.builds.appledb import APPLEDB, PublishedBuild, PublishedBuilds, parse_appledb, read_appledb
from symcache_provisioning.builds.assessment import Candidate, MachineBuild
from symcache_provisioning.builds.firmware import download_firmware
from symcache_provisioning.builds.machine_builds import machine_builds
from symcache_provisioning.builds.runner import BuildReport, HarvestOutcome, SyncRunner
from symcache_provisioning.builds.selection import select_builds
from symcache_provisioning.drivers import DRIVERS, Driver, make_driver
from symcache_provisioning.harvest import HarvestResult, harvest
from symcache_provisioning.interrupts import Interrupts
from symcache_provisioning.machines.checks import Check, Outcome
from symcache_provisioning.machines.creation import Created, create_machine
from symcache_provisioning.machines.doctor import check_machine
from symcache_provisioning.machines.inventory import Inventory, MachineDefinition
from symcache_provisioning.machines.life_cycle import GUEST_LIMIT, Machine
from symcache_provisioning.machines.orphans import OrphanedVM, find_orphans
from symcache_provisioning.machines.provision import Provisioner, remote_login_out_of_band
from symcache_provisioning.machines.runs import Run, RunStore
from symcache_provisioning.progress import Amount, HarvestProgress
from symcache_provisioning.sources.firmware import IpswSource
from symcache_provisioning.sources.folder import DirectorySource
from symcache_provisioning.sources.machine import SshSource
from symcache_provisioning.sources.recognize import Recognized, recognize
from symcache_provisioning.sources.source import Source
from symcache_provisioning.ssh.config import SshConfig
from symcache_provisioning.ssh.host_keys import HostKeyTrust
from symcache_provisioning.ssh.login import Login, SshTarget
from symcache_provisioning.ssh.session import SshSession

__all__ = [
    "APPLEDB",
    "DRIVERS",
    "GUEST_LIMIT",
    "Amount",
    "BuildReport",
    "Candidate",
    "Check",
    "Created",
    "DirectorySource",
    "Driver",
    "HarvestOutcome",
    "HarvestProgress",
    "HarvestResult",
    "HostKeyTrust",
    "Interrupts",
    "Inventory",
    "IpswSource",
    "Login",
    "Machine",
    "MachineBuild",
    "MachineDefinition",
    "OrphanedVM",
    "Outcome",
    "Provisioner",
    "PublishedBuild",
    "PublishedBuilds",
    "Recognized",
    "Run",
    "RunStore",
    "Source",
    "SshConfig",
    "SshSession",
    "SshSource",
    "SshTarget",
    "SyncRunner",
    "available_releases",
    "check_machine",
    "create_machine",
    "download_firmware",
    "find_orphans",
    "harvest",
    "machine_builds",
    "make_driver",
    "parse_appledb",
    "read_appledb",
    "recognize",
    "remote_login_out_of_band",
    "select_builds",
]
