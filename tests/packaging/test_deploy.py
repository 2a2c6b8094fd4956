"""What deploy/ and the workflows say is true of this version: options, files, packages.

`make package-check` does it by hand.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Sequence
from typing import Any

import pytest
import typer
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from symcache.cli.app import application
from tests.packaging.recipes import DEPLOY, ROOT, compose, dockerfile, from_docker, unit

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def _parse(words: Sequence[str]) -> dict[str, Any]:
    """Return the options of a command line of ours; raises what its user would see for one that does not exist."""
    group = typer.main.get_command(application(words[0]))
    assert hasattr(group, "commands")
    options: dict[str, Any] = group.commands[words[0]].make_context(words[0], list(words[1:])).params
    return options


def test_the_image_starts_a_server_that_others_can_reach_as_nobody_in_particular() -> None:
    words = from_docker("ENTRYPOINT").words + from_docker("CMD").words
    assert words[0] == "symcache"
    options = _parse(words[1:])
    assert (options["host"], str(options["port"])) == ("0.0.0.0", from_docker("EXPOSE").text)
    assert not options["public_reads"]
    user, _, group = from_docker("USER").text.partition(":")
    assert user.isdecimal() and int(user) > 0 and group == user  # a number: engines can tell that it is not root
    assert f"--uid {user} " in dockerfile()[-1][1].text
    last = [i.name for i in dockerfile()[-1]]
    assert "RUN" not in last[last.index("USER") :]
    probe = from_docker("HEALTHCHECK").words[-1]
    compile(probe, "HEALTHCHECK", "exec")
    assert "/healthz" in probe and f" {options['port']}," in probe


def test_the_image_is_made_of_files_that_are_there_and_that_the_engine_is_sent() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    sent = {line[1:] for line in ignored if line.startswith("!")}
    copied = {w for i in dockerfile()[0] if i.name == "COPY" for w in i.words[:-1]}
    assert copied == sent
    assert all((ROOT / name).exists() for name in copied)
    ours = {p.split("/")[0] for p in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]}
    assert ours <= copied


def test_a_volume_is_where_the_image_keeps_something() -> None:
    text = from_docker("ENV").text
    environment = dict(word.split("=", 1) for word in shlex.split(text))
    kept = {f"{environment[name]}/symcache" for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME")}
    assert set(from_docker("VOLUME").words) == kept | {environment["SYMCACHE_LIBRARY"]}


@pytest.mark.parametrize("lock", ["requirements.txt", "build-requirements.txt"])
def test_pinned_packages_are_those_that_are_required(lock: str) -> None:
    project = PROJECT["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["s3"]
    if lock == "build-requirements.txt":
        wanted = PROJECT["dependency-groups"]["release"] + PROJECT["build-system"]["requires"]
    text = (DEPLOY / lock).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    pinned: dict[str, list[str]] = {}
    for line in lines:
        requirement, *hashes = line.split(" --hash=")
        assert hashes, requirement
        parsed = Requirement(requirement)
        (version,) = parsed.specifier
        assert version.operator == "=="
        pinned.setdefault(canonicalize_name(parsed.name), []).append(version.version)
    for requirement in map(Requirement, wanted):
        versions = pinned.get(canonicalize_name(requirement.name))
        assert versions, f"{requirement}: not in deploy/{lock}; `make lock` writes it"
        assert all(v in SpecifierSet(str(requirement.specifier)) for v in versions), requirement


def test_the_unit_starts_a_server_for_nginx_that_can_confine_what_reads_strangers_files() -> None:
    (start,) = unit()["ExecStart"]
    options = _parse(shlex.split(start)[1:])
    assert options["require_token"], "everybody comes from this machine there, so reading would be open"
    assert options["host_name"] and options["trust_proxy"]
    (state,) = [w for e in unit()["Environment"] for w in e.split() if w.startswith("XDG_STATE_HOME=")]
    assert str(options["access_log"]).startswith(state.partition("=")[2] + "/symcache/")
    allowed = set(unit()["SystemCallFilter"][0].split())
    # Which sets of system calls have no name for these depends on the version of systemd.
    assert {"seccomp", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"} <= allowed
    library = unit()["Environment"][0].partition("=")[2]
    assert unit()["ReadWritePaths"] == [f"-{library}"]
    assert unit()["User"] != ["root"]
    assert {*unit()["ProtectSystem"], *unit()["NoNewPrivileges"]} == {"strict", "true"}


def test_compose_has_one_key_for_both_and_nothing_writable_but_volumes() -> None:
    server, store = compose()["server"], compose()["store"]
    options = _parse(server["command"])
    assert not options["public_reads"]
    published = server["ports"][0].split(":")
    assert published[0] == "127.0.0.1" and published[-1] == str(options["port"])
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert server["environment"][name] == store["environment"][name]
    assert server["environment"]["AWS_SECRET_ACCESS_KEY"].startswith("${S3_SECRET_KEY:?")
    targets = {v.split(":")[1] for v in server["volumes"]}
    assert set(from_docker("VOLUME").words) - {"/library"} <= targets and "/tmp" in targets
    assert server["read_only"] and server["cap_drop"] == ["ALL"]
    assert (DEPLOY / server["build"]["context"] / server["build"]["dockerfile"]).samefile(DEPLOY / "Dockerfile")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_workflows_run_pinned_actions_with_no_more_rights_than_they_need(path: Any) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] in ({}, {"contents": "read"})
    for use in re.findall(r"uses: *(.*)", path.read_text()):
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", use), use
    for name, job in workflow["jobs"].items():
        writes = {right for right, how in job.get("permissions", {}).items() if how == "write"}
        assert not writes or path.stem == "release", name


def test_every_python_that_is_promised_is_tried() -> None:
    promised = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["project"]["classifiers"]))
    (ci,) = [yaml.safe_load(p.read_text()) for p in WORKFLOWS if p.stem == "ci"]
    assert ci["jobs"]["test"]["strategy"]["matrix"]["python"] == promised
    assert f'pythons="{" ".join(promised)}"' in (ROOT / ".ci/package").read_text()
    assert PROJECT["project"]["requires-python"] == f">={promised[0]}"
