"""The whole main job on one machine, with a stand-in macOS host: see `symcache demo`."""
