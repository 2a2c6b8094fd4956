"""JUnit reports are there whole, wherever they are to be."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from symcache.cli.junit import Case, write_junit
from symcache.errors import StorageError


def test_the_folder_is_made_and_what_was_there_replaced(tmp_path: Path) -> None:
    file = tmp_path / "reports/of/ci/harvest.xml"
    for name in ("mäc", "other"):
        write_junit("harvest", [Case(name, 1.0, "failure", "partial", "m")], file)
        assert [case.get("name") for case in ET.parse(file).iter("testcase")] == [name]
    assert list(file.parent.iterdir()) == [file]
    with pytest.raises(StorageError, match=r"File exists|Not a directory"):
        write_junit("harvest", [], file / "below.xml")
