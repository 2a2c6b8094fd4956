"""Starting this program again in a process of its own, whatever lies in the working folder.

Python puts the working folder in front of everything that `-m` and `-c` import: a `typer.py` that lies there would be
run. `-P` keeps it out. `-I` would, too, but it also takes away the user's site, where `pip install --user` puts us.
"""

from __future__ import annotations

import os
import shlex
import site
import sys
from collections.abc import Mapping
from pathlib import Path

import symcache

__all__ = ["keep_working_folder_out", "own_environment", "own_python", "pip_install", "user_site"]


def own_python(*arguments: str) -> list[str]:
    """Return the command that runs `-m MODULE …` or `-c CODE …` of this project, in an `own_environment`."""
    return [sys.executable, "-P", *arguments]


def own_environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return `base`, or all variables of this process, with those by which Python finds what this process found."""
    given = os.environ.get("PYTHONPATH", "")
    folders = [str(Path(folder).absolute()) for folder in given.split(os.pathsep)] if given else []
    package = str(Path(symcache.__file__).parent.parent)
    if package not in sys.path[0 if sys.flags.safe_path else 1 :]:
        folders.insert(0, package)  # only the working folder, or that of the script, has led to us
    path = {"PYTHONPATH": os.pathsep.join(folders)} if folders else {}
    return {**(os.environ if base is None else base), **user_site(), **path}


def pip_install(requirement: str) -> str:
    """Return the line that installs a package for this program: the `pip` on the path may be another Python's."""
    return f"{shlex.quote(sys.executable)} -m pip install {shlex.quote(requirement)}"


def user_site() -> dict[str, str]:
    """Return the variable that names the user's site where it is in use: `HOME` may be another one in the child."""
    return {"PYTHONUSERBASE": site.getuserbase()} if site.ENABLE_USER_SITE else {}


def keep_working_folder_out() -> None:
    """Keep the working folder out of what the children of `multiprocessing` import, which starts them by `-c`."""
    os.environ["PYTHONSAFEPATH"] = "1"
