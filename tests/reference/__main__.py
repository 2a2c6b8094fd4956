"""Writes docs/reference and docs/man."""

from __future__ import annotations

import sys

from tests.reference.errors import UndescribedError
from tests.reference.pages import write

try:
    write()
except UndescribedError as error:
    sys.exit(f"error: {error}")
