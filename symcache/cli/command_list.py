"""Which commands there are, by what one wants to do, and the module that has each: all that help needs to know."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["COMMANDS", "PANELS", "ListedCommand"]


class ListedCommand(NamedTuple):
    """A command as the list of all shows it."""

    name: str
    module: str
    """Of this package: it registers the command."""
    summary: str
    """One line of 80 columns. Empty for what is for other programs: it is not listed."""


PANELS: dict[str, tuple[ListedCommand, ...]] = {
    "See it work": (ListedCommand("demo", "demo", "Harvest a stand-in Mac, verify, serve, and open crash dumps."),),
    "Keep the binaries of a release": (
        ListedCommand("harvest", "harvest", "Store every Mach-O of a Mac, VM, mounted image or IPSW."),
        ListedCommand("add", "adding", "Add own binaries, dSYMs, and copies that Apple's tools made."),
        ListedCommand("sync", "sync", "Harvest the macOS builds that came out since."),
        ListedCommand("vm", "machines", "Look after the machines that are harvested."),
    ),
    "See and fetch what there is": (
        ListedCommand("releases", "library", "List the macOS releases that the library holds."),
        ListedCommand("lookup", "lookup", "Find binaries by UUID, or by a part of their name."),
        ListedCommand("get", "library", "Fetch one binary by UUID."),
        ListedCommand("export", "export", "Write a release as files, for Xcode and LLDB."),
        ListedCommand("verify", "verify", "Prove that releases are complete."),
        ListedCommand("diff", "verify", "List what changed between two releases."),
        ListedCommand("missing", "missing", "List what was asked for and nobody had."),
        ListedCommand("stats", "maintenance", "Say how much the library holds, and what it takes on disk."),
    ),
    "Read a crash": (
        ListedCommand("open", "dumps", "Open a crash dump in LLDB."),
        ListedCommand("analyze", "analyze", "Print every thread's frames, of dumps and crash reports."),
        ListedCommand("symbolicate", "symbolicate", "Put names to addresses, as atos does, or to whole reports."),
        ListedCommand("dump", "capture", "Write a crash dump of a process (macOS only)."),
        ListedCommand("setup", "setup", "Have your own LLDB use a library or server."),
        ListedCommand("dsymforuuid", "dsymforuuid", "Reply to LLDB and Instruments like dsymForUUID."),
    ),
    "Share it with a team": (
        ListedCommand("serve", "serve", "Serve a library over HTTP, as debuggers ask for it."),
        ListedCommand("push", "push", "Send own binaries and dSYMs to a server."),
        ListedCommand("token", "push", "Say who may read and write over HTTP."),
    ),
    "Look after a library": (
        ListedCommand("fsck", "maintenance", "Check that everything is there and is what it was."),
        ListedCommand("remove", "remove", "Take back a release."),
        ListedCommand("prune", "prune", "Take back the releases that the site keeps no longer."),
        ListedCommand("gc", "maintenance", "Free the space of what was taken back."),
        ListedCommand("prefer", "maintenance", "Decide which of several contents of a UUID is served."),
        ListedCommand("reextract", "maintenance", "Extract the images of a release anew from its raw caches."),
        ListedCommand("rebuild", "maintenance", "Make the catalog anew from all records."),
    ),
    "Work with files, without a library": (
        ListedCommand("info", "caches", "Say what a file is: cache, Mach-O, dSYM, dump, report."),
        ListedCommand("extract", "caches", "Extract the images of a dyld shared cache."),
    ),
    "": (ListedCommand("lldb-plan", "lldb_plan", ""),),
}
"""In the order of `symcache --help`."""
COMMANDS = {command.name: command for panel in PANELS.values() for command in panel}
