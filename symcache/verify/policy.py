"""What a site wants of the builds that come out, and what it keeps of them: `[sync]` and `[retention]` of its table."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationInfo, field_validator

from symcache.model import BUILD_PATTERN

__all__ = ["BuildName", "ReleaseName", "RetentionPolicy", "SyncPolicy", "Version", "is_beta", "version_number"]

Version = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,4}(\.[0-9]{1,4}){0,3}$")]
BuildName = Annotated[str, StringConstraints(pattern=BUILD_PATTERN)]
ReleaseName = Annotated[str, StringConstraints(pattern=r"^([A-Za-z][A-Za-z0-9 ]{0,31}:)?[A-Za-z0-9._-]{1,64}$")]
"""A build, or `PRODUCT:BUILD`."""
_BETA = re.compile(r"[0-9]{1,3}[A-Z](?:5[0-9]{3}[a-z]?|[0-9]{1,4}[a-z])")
"""Apple numbers betas from 5000 on, and ends them with a letter. Security Responses have more digits."""
_Days = Annotated[int, Field(strict=True, ge=0, le=36500)]


class SyncPolicy(BaseModel):
    """Which of the published builds are wanted, besides those that the table expects anyway."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    from_: Version | None = Field(default=None, alias="from")
    """Versions from this one on; without it, the newest `lines`."""
    before: Version | None = None
    lines: Annotated[int, Field(strict=True, ge=1, le=100)] = 3
    """Major versions, counted from the newest that is released: Apple updates three."""
    betas: bool = False
    rcs: bool = False
    """Release candidates, mostly the very build that is released days later."""
    responses: bool = False
    """Rapid Security Responses, of which no firmware is published."""
    skip: tuple[BuildName, ...] = ()
    """Builds that are not wanted whatever the rest says."""
    attempts: Annotated[int, Field(strict=True, ge=1, le=100)] = 5
    """After so many failures with one source a build is given up, until there is another."""

    @field_validator("before")
    @classmethod
    def _after_from(cls, before: str | None, info: ValidationInfo) -> str | None:
        start = info.data.get("from_")
        if before and start and version_number(start) >= version_number(before):
            raise ValueError(f"no version is from {start} on and before {before}: write a later one")
        return before


class RetentionPolicy(BaseModel):
    """What stays. Without `beta_days` and `last`, everything does."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    beta_days: _Days | None = None
    """Betas and release candidates go so many days after they came out."""
    last: Annotated[int, Field(strict=True, ge=1, le=10000)] | None = None
    """Of each line (major version), so many of the newest released builds stay."""
    pinned: tuple[ReleaseName, ...] = ()
    """Releases that stay whatever the rest says, as those that the table expects do."""
    requested_days: _Days | None = None
    """What a server was asked for within so many days stays."""


def is_beta(build: str, extra: str) -> bool:
    """Return whether a release is a beta by its build and the `extra` of its version, where nobody says so."""
    return bool(_BETA.fullmatch(build)) or "beta" in extra.lower()


@lru_cache(4096)
def version_number(version: str) -> tuple[int, ...]:
    """Return a version as numbers that compare; what is no number ends it."""
    match = re.match(r"[0-9]{1,9}(\.[0-9]{1,9})*", version)
    numbers = [int(n) for n in match[0].split(".")] if match else [0]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()  # 13.0 is 13
    return tuple(numbers)
