"""Coverage-guided fuzzing: `python -m tests.fuzz`. Each `fuzz_*` module has `SEEDS()` and `one_input(data)`."""
