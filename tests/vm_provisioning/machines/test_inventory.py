"""machines.toml: what is understood, and mistakes that are named with file and key."""

from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from symcache.errors import NotFoundError, UsageError
from symcache_provisioning.machines.inventory import Inventory, MachineDefinition

GOOD = """\
# Two machines
[machines.sonoma]
driver = "tart"
image = "ghcr.io/cirruslabs/macos-sonoma-base:latest"
user = "admin"
identity = "~/.ssh/symcache"
password_env = "SONOMA_PASSWORD"
host_key = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
version = "14.6"
build = "23G80"
roots = ["/usr/lib"]
tags = ["arm64", "nightly"]

[machines.sonoma.options]
network = "softnet"

[machines."old-mac"]
driver = "static"
host = "mac.example"
port = 2222
agent = false
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "machines.toml"
    path.write_text(text)
    return path


def test_an_inventory_says_how_to_get_at_its_machines(tmp_path: Path) -> None:
    inventory = Inventory.load(write(tmp_path, GOOD))
    assert list(inventory.machines) == ["sonoma", "old-mac"]
    sonoma, old = inventory.get("sonoma"), inventory.get("old-mac")
    assert (sonoma.driver, sonoma.build, sonoma.tags) == ("tart", "23G80", ("arm64", "nightly"))
    assert sonoma.options.model_dump()["network"] == "softnet"
    assert sonoma.login.identity == Path.home() / ".ssh/symcache"
    assert sonoma.login.password_env == "SONOMA_PASSWORD"
    assert (old.host, old.port, old.user, old.login.agent) == ("mac.example", 2222, "admin", False)
    assert MachineDefinition.model_validate_json(sonoma.model_dump_json()) == sonoma, "it can be written down"


@pytest.mark.parametrize(
    ("text", "key", "why"),
    [
        ('[machines.a]\ndriver = "tart"\nimage = "x"\npassword = "hunter2"\n', "password", "is a secret"),
        ('[machines.a]\ndriver = "tart"\nimage = "x"\nToken = "hunter2"\n', "Token", "is a secret"),
        ('[machines.a]\ndriver = "tart"\nimage = "x"\npassword_env = "hunter2"\n', "password_env", "pattern"),
        ('[machines.a]\ndriver = "tart"\nimage = "x"\nusr = "b"\n', "usr", "unknown key"),
        ('[machines.a]\n\ndriver = "tarte"\nimage = "x"\n', "driver", "must be one of tart, anka"),
        ('[machines.a]\ndriver = "tart"\n', "image", "is missing"),
        ('[machines.a]\nimage = "x"\n', "driver", "is missing"),
        ('[machines.a]\ndriver = "tart"\nimage = "-x"\n', "image", "begin with -"),
        ('[machines.a]\ndriver = "tart"\nimage = "x"\nhost_key = "MD5:aa"\n', "host_key", "no fingerprint"),
        ('[machines.a]\ndriver = "tart"\nimage = "x"\nhost = "h"\n', "host", "leave it out"),
        ('[machines.a]\ndriver = "tart"\nimage = "x"\nbuild = "latest"\n', "build", "pattern"),
        ('[machines.a]\ndriver = "tart"\nimage = "x"\nroots = [\n"/a",\n"b"]\n', "roots.1", "absolute folder"),
        ('[machines.a]\ndriver = "tart"\nimage = "x"\nuser = "-oProxyCommand=x"\n', "user", "not a user name"),
        ('[machines.a]\ndriver = "static"\n', "host", "is missing"),
        ('[machines.a]\ndriver = "static"\nhost = "-oProxyCommand=x"\n', "host", "not a host name"),
        ('[machines.a]\ndriver = "static"\nhost = "h"\nport = 70000\n', "port", "less than or equal to 65535"),
        (
            '[machines.a]\ndriver = "tart"\nimage = "x"\n[machines.a.options]\nnetwork = "wifi"\n',
            "options.network",
            "pattern",
        ),
        ('[machines.a]\ndriver = "tart"\nimage = "x"\noptions.wifi = 1\n', "options.wifi", "unknown key"),
        ('machines = { a = { driver = "tart", image = "x", b = 1 } }\n', "machines.a.b", "unknown key"),
        (
            '[machines.a]\ndriver = "qemu"\nimage = "/x"\noptions = { arguments = ["-S"] }\n',
            "options.arguments",
            "{disk}",
        ),
        ('title = "x"\n[machines.a]\ndriver = "tart"\n', "title", "unknown key"),
        ('[machines."-rf"]\ndriver = "tart"\n', "-rf", "cannot be the name"),
        ('[machines.ok]\ndriver="static"\nhost="h"\n[machines."a/b"]\n', "a/b", "cannot be the name"),
        ('[machines."a.b"]\ndriver = "tart"\n', "a.b", "cannot be the name"),
        ("[machines]\na = 1\n", "machines.a", "must be a table"),
        ("machines = 1\n", "machines", "must be tables"),
        ('[machines.a]\ndriver = "tart\n', "", "not TOML"),
    ],
)
def test_a_mistake_is_named_with_file_and_key(tmp_path: Path, text: str, key: str, why: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UsageError) as raised:
        Inventory.load(path)
    said = str(raised.value)
    assert said.startswith(f"{path}")
    assert key in said
    assert why in said
    assert "hunter2" not in said, "what may be a secret is not repeated"
    assert raised.value.hint


def test_it_is_found_where_settings_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, named = tmp_path / "here", tmp_path / "named.toml"
    here.mkdir()
    monkeypatch.chdir(here)
    assert Inventory.load().path is None
    user = platformdirs.user_config_path("symcache") / "machines.toml"
    user.parent.mkdir(parents=True)
    user.write_text(GOOD)
    assert Inventory.load().path == user
    (here / "machines.toml").write_text(GOOD)
    assert Inventory.load().path == Path("machines.toml")
    named.write_text(GOOD)
    monkeypatch.setenv("SYMCACHE_MACHINES", str(named))
    assert Inventory.load().path == named
    assert Inventory.load(user).path == user


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        Inventory.load(tmp_path / "none.toml")
    with pytest.raises(NotFoundError, match="no inventory of machines"):
        Inventory(None).get("sonoma")
    with pytest.raises(NotFoundError, match="no machine of that name") as raised:
        Inventory.load(write(tmp_path, GOOD)).get("sonomo")
    assert "sonoma, old-mac" in raised.value.hint


@given(start=st.integers(0, len(GOOD)), length=st.integers(0, 40), text=st.text(max_size=30))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_stands_there_is_understood_or_refused(tmp_path: Path, start: int, length: int, text: str) -> None:
    path = tmp_path / "machines.toml"
    path.write_text(GOOD[:start] + text + GOOD[start + length :], "utf-8", "surrogatepass")
    try:
        Inventory.load(path)
    except UsageError as error:
        assert str(path) in str(error)
        assert str(error).isprintable()
