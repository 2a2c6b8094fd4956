"""An analysis as a page: one file without scripts or outside parts, to be mailed or kept with a bug report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from symcache.style import style_sheet
from symcache.text import printable_value

__all__ = ["to_html"]


@cache
def _template() -> Template:
    # Everything on the page may come out of a hostile dump: escaping is on for all of it.
    environment = Environment(
        loader=PackageLoader("symcache.dump"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=printable_value,
    )
    return environment.get_template("analysis.html")


def to_html(reports: Sequence[dict[str, Any]]) -> str:
    """Return a page about some analyses, each as `Analysis.to_json` gives it, or an object with `dump` and `error`."""
    # Ours, and no markup in a sheet: there is nothing in it to escape.
    return _template().render(reports=reports, style=Markup(style_sheet()))  # noqa: S704
