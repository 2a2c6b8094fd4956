"""What only a real Mac can tell, as one command: `python -m tests.acceptance`, or `make mac-acceptance`.

Each part is a module with a function that takes a `Mac` and a `Part`, and tells the part what it has checked and found.
No part changes the system; a part whose need is not there is skipped by name. See docs/mac-acceptance.md.
"""
