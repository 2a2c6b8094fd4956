"""The whole main job on one machine, with a stand-in macOS host: see `symcache demo`.

The files of that host, its shared caches among them, lie in `assets`; `python -m tests.corpus` makes them.
"""
