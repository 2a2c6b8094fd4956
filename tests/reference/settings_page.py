"""The page of environment variables and of `symcache.toml`."""

from __future__ import annotations

from symcache.cli.settings import SETTINGS, Setting
from tests.reference.markdown import code, page, table

__all__ = ["SETTINGS_FILES", "settings_page", "variables"]

SETTINGS_FILES = (
    ("symcache.toml", "Settings, in the working folder. It wins key by key over the next."),
    ("~/.config/symcache/symcache.toml", "Settings of the user; on macOS below `~/Library/Application Support`."),
    ("machines.toml", "The inventory of machines, in the working folder, else beside the settings of the user."),
    ("~/.local/share/symcache/library", "The library, where nothing names another one."),
    ("~/.cache/symcache", "Fetched binaries, catalogs, copies of a harvest under way; may be deleted."),
    ("~/.local/state/symcache", "Tokens, uploads and the log of misses of a server; machines that are up."),
)

_INTRODUCTION = """\
An option wins over the environment, that over `symcache.toml` in the working folder, that over `symcache.toml` in the
user's configuration folder."""

_FOREIGN = """\
XDG's variables (`XDG_CONFIG_HOME`, `XDG_DATA_HOME`, `XDG_CACHE_HOME`, `XDG_STATE_HOME`) move the folders on Linux."""


def variables() -> list[Setting]:
    """Return the settings that have a variable."""
    return [setting for setting in SETTINGS if setting.variable]


def settings_page() -> str:
    """Return the page."""
    own = [s for s in SETTINGS if not s.variable or s.variable.startswith("SYMCACHE_")]
    rows = [[code(s.variable), code(s.form), code(s.option), s.meaning] for s in own]
    return page(
        "Environment and settings",
        _INTRODUCTION,
        table(["variable", "key in `symcache.toml`", "option", "says"], rows),
        "## Variables of others",
        table(["variable", "says"], [[code(s.variable), s.meaning] for s in SETTINGS if s not in own]),
        "## Files",
        table(["file", "holds"], [[code(path), text] for path, text in SETTINGS_FILES]),
        _FOREIGN,
    )
