"""Folders of own binaries, whatever else lies in them."""

from __future__ import annotations

from pathlib import Path

from symcache.images import ImageRequest
from symcache.resolve import FolderResolver
from tests.support.servers import noise_image, uuid_of


def test_what_cannot_be_looked_at_hides_nothing(tmp_path: Path) -> None:
    image = noise_image(tmp_path)
    (tmp_path / "a").symlink_to("x" * 300)  # to look at it is an error: no name is so long
    (tmp_path / "b").symlink_to("b")
    found = FolderResolver([tmp_path]).resolve([ImageRequest(uuid_of(image))])
    assert [file.path for file in found.values()] == [image]
