"""What deploy/ says, as values: instructions of the Dockerfile, settings of the unit, services of compose."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import yaml

__all__ = ["DEPLOY", "ROOT", "Instruction", "compose", "dockerfile", "from_docker", "unit"]

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


class Instruction(NamedTuple):
    """One of a Dockerfile."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """Of the exec form, or as a shell splits them."""
        start = self.text.find("[")
        words: list[str] = json.loads(self.text[start:]) if self.text.endswith("]") else shlex.split(self.text)
        return words


def dockerfile() -> list[list[Instruction]]:
    """Return the instructions of each stage; the first is FROM."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    stages: list[list[Instruction]] = []
    for line in text.replace("\\\n", "").splitlines():
        name, _, rest = line.strip().partition(" ")
        if name == "FROM":
            stages.append([])
        if name:
            stages[-1].append(Instruction(name, rest.strip()))
    return stages


def from_docker(name: str) -> Instruction:
    """Return the only instruction of a name in the last stage."""
    (found,) = [i for i in dockerfile()[-1] if i.name == name]
    return found


def unit() -> dict[str, list[str]]:
    """Return the values of each setting of the unit, in all sections."""
    settings: dict[str, list[str]] = {}
    for line in (DEPLOY / "symcache.service").read_text().replace("\\\n", " ").splitlines():
        if "=" in line and not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            settings.setdefault(name, []).append(value.strip())
    return settings


def compose() -> dict[str, Any]:
    """Return the services by name."""
    services: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return services
