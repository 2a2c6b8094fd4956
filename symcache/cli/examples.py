"""What help shows of each command in use: lines that work as they stand, but for names."""

from __future__ import annotations

__all__ = ["EXAMPLES"]

EXAMPLES: dict[str, tuple[str, ...]] = {
    "": (
        "symcache demo                             # needs no Mac",
        "symcache harvest ssh://admin@mac.example  # a Mac with Remote Login",
        "symcache open crash.zip                   # LLDB on a crash dump",
    ),
    "demo": ("symcache demo --keep",),
    "harvest": (
        "symcache harvest ssh://admin@mac.example --trust-new-host",
        "symcache harvest /Volumes/Restore",
        "symcache harvest --all --junit harvest.xml",
    ),
    "add": ("symcache add build/Ledger.app build/Ledger.dSYM",),
    "sync": ("symcache sync --dry-run", "symcache sync 22G120"),
    "vm": ("symcache vm list",),
    "vm list": ("symcache vm list --tag nightly",),
    "vm doctor": ("symcache vm doctor sonoma --up",),
    "vm create": ("symcache vm create sonoma --from-ipsw latest",),
    "vm up": ("symcache vm up sonoma --trust-new-host",),
    "vm down": ("symcache vm down sonoma", "symcache vm down --all"),
    "vm provision": ("symcache vm provision sonoma --dry-run",),
    "releases": ("symcache releases",),
    "lookup": (
        "symcache lookup corefoundation --build 22G120",
        "symcache lookup 'libsystem_*'",
        "symcache lookup 23516BE4-29BE-350C-91C9-F36E7999F0F1",
    ),
    "get": ("symcache get 23516BE4-29BE-350C-91C9-F36E7999F0F1 -o libz.dylib",),
    "verify": (
        "symcache verify",
        "symcache verify 22G120 --level bytes --junit verify.xml",
        "symcache verify --dump crash.zip --server https://symbols.example",
    ),
    "diff": ("symcache diff 22G90 22G120",),
    "missing": ("symcache missing --server https://symbols.example",),
    "stats": ("symcache stats",),
    "open": ("symcache open crash.zip --server https://symbols.example",),
    "analyze": ("symcache analyze crash.zip", "symcache analyze dumps/*.zip --json -o results"),
    "symbolicate": (
        "symcache symbolicate Ledger.ips > named.ips",
        "symcache symbolicate -o Ledger.dSYM -l 0x104320000 0x104324a30",
    ),
    "dump": ("symcache dump 4711 -o dumps", "symcache dump --handler -o dumps"),
    "setup": ("symcache setup lldb --server https://symbols.example",),
    "setup lldb": (
        "symcache setup lldb --server https://symbols.example",
        "symcache setup lldb --undo",
    ),
    "dsymforuuid": ("symcache dsymforuuid 23516BE4-29BE-350C-91C9-F36E7999F0F1",),
    "serve": (
        "symcache serve",
        "symcache serve --host 0.0.0.0 --public-reads --sources /Users/ci/app=/srv/app",
    ),
    "push": ("symcache push build/Ledger.app --server https://any:TOKEN@symbols.example",),
    "token": ("symcache token create ci --scope write",),
    "token create": (
        "symcache token create ci --scope write --expires 90d",
        "symcache token create profiler --names",
    ),
    "token list": ("symcache token list",),
    "token revoke": ("symcache token revoke ci",),
    "fsck": ("symcache fsck --read-data-subset 1/30", "symcache fsck --read-data --repair --from s3://bucket/other"),
    "remove": ("symcache remove 22G120 --dry-run", "symcache remove --undo 22G120"),
    "prune": ("symcache prune --dry-run --all",),
    "gc": ("symcache gc --dry-run",),
    "prefer": ("symcache prefer 23516BE4-29BE-350C-91C9-F36E7999F0F1 22a96efb",),
    "reextract": ("symcache reextract 22G120",),
    "rebuild": ("symcache rebuild --snapshot",),
    "info": ("symcache info dyld_shared_cache_arm64e",),
    "extract": ("symcache extract dyld_shared_cache_arm64e -o out --image '*/libz*'",),
    "export": ("symcache export 22G120 -o ~/Library/Developer/Xcode",),
}
"""By command; the empty one is the program itself."""
