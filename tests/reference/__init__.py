"""The reference of `docs/reference` and the man pages of `docs/man`, made from the code: `python -m tests.reference`.

What the code knows is said there: the help of an option, the docstring of a handler, a finding code or a field. What a
page needs and no code says stands in `json_output.toml`, for the keys of `--json`. Nothing here may depend on the
machine or the time: a test compares what is committed with what is made.
"""
