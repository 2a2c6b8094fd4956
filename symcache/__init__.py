"""symcache: harvest, keep and serve the system binaries of macOS by UUID, and open crash dumps with them."""

__version__ = "0.2.0.dev0"
