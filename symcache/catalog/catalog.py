"""The whole catalog; each topic has its module."""

from __future__ import annotations

from symcache.catalog.browse import Browse
from symcache.catalog.completeness import Completeness
from symcache.catalog.glance import Glance
from symcache.catalog.records import Records
from symcache.catalog.releases import Releases

__all__ = ["Catalog"]


class Catalog(Browse, Releases, Glance, Records, Completeness):
    """The index over the records of a store: look-up, browsing, releases, records, completeness."""
