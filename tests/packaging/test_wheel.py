"""What a user gets by `pip install`: the wheel alone, outside of the checkout, does the whole main job."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support.planted import plant

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"symcache", "symcache_server", "symcache_provisioning"}
"""None has a name that may be somebody else's."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(ROOT)],
        check=True,
        capture_output=True,
        text=True,
    )
    (built,) = target.glob("*.whl")
    return built


def test_the_wheel_holds_the_packages_and_nothing_of_the_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {n.partition("/")[0] for n in names}
    assert {t for t in tops if not t.endswith((".dist-info", ".data"))} == PACKAGES
    data = {n.partition(".data/")[2] for n in names if ".data/" in n}
    assert data == {f"data/share/man/man1/{page.name}" for page in (ROOT / "docs" / "man").iterdir()}
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assert any(n.startswith("symcache/demo/assets/host/") for n in names)
    assert any(n.endswith(".dist-info/licenses/LICENSE") for n in names)


def test_the_demo_runs_from_an_installed_wheel_and_leaves_nothing(wheel: Path, tmp_path: Path) -> None:
    folder = tmp_path / "installed"
    # What the wheel requires is here already; only the project itself must come from the wheel.
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    site = next((folder / "lib").glob("python3*")) / "site-packages"
    own = sysconfig.get_path("purelib")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(site), str(wheel)],
        check=True,
        capture_output=True,
    )
    # Only one level of .pth files is read, so the one that would bring the checkout back is not.
    (site / "requirements.pth").write_text(own + "\n")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    theirs = tmp_path / "theirs"  # modules of somebody else, which have nothing to do with ours of such names
    theirs.mkdir()
    for name in ("server", "vm_provisioning"):
        (theirs / f"{name}.py").write_text("raise SystemExit(__name__)\n")
    environment = os.environ | {"PYTHONPATH": str(theirs), "TMPDIR": str(scratch)}
    where = subprocess.run(
        [python, "-c", "import symcache, symcache_server as server; print(symcache.__file__, server.__file__)"],
        env=environment,
        cwd=scratch,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert where.count(str(folder)) == 2, where

    marker = plant(tmp_path / "planted")
    ran = subprocess.run(
        [python, "-c", "import sys; del sys.path[0]; from symcache.cli import main; main()", "demo"],
        env=environment,
        cwd=tmp_path / "planted",
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert not marker.exists()  # what lies in the working folder is no part of the program
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-4000:]
    for expected in ("Ledger", "LedgerKit", "libsystem_c.dylib", "main.c:"):
        assert expected in ran.stdout
    assert list(scratch.iterdir()) == []
