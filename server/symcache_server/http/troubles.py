"""What does not work at the moment: logged once when it begins, and shown by `/readyz` as long as it lasts."""

from __future__ import annotations

import errno
import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["Troubles", "look_at_folders"]

log = logging.getLogger("symcache.server")
_FULL = {errno.ENOSPC, errno.EDQUOT}
_LEAST = 4096


class Troubles:
    """Sentences by what they are about; `unready` are those with which look-ups are better sent to another server."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self.unready: set[str] = set()

    def note(self, about: str, text: str, *, unready: bool = False) -> None:
        """Take note of what is wrong; an empty text is that nothing is any more."""
        (self.unready.add if text and unready else self.unready.discard)(about)
        if not text:
            self._texts.pop(about, None)
        elif self._texts.get(about) != text:
            self._texts[about] = text
            log.warning("%s", text)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._texts.values()))


def look_at_folders(troubles: Troubles, folders: Mapping[str, tuple[Path, str, bool]]) -> None:
    """Write to each folder, and note what fails: by name, the folder, what that means, and if it is `needed`.

    The cache makes room itself where its disk is full, so that never makes a server unready; a disk that is read-only
    or broken does, if it is needed.
    """
    for name, (folder, meaning, needed) in folders.items():
        try:
            # Without a name if the system can do that, so that nothing is left behind.
            with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
                file.write(bytes(_LEAST))
            troubles.note(name, "")
        except OSError as error:
            text = f"{name} {folder} takes no files ({error.strerror or error}): {meaning}"
            troubles.note(name, text, unready=needed and error.errno not in _FULL)
