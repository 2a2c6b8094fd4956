"""Source files of a dump's binaries, and the notes that lead to them."""
