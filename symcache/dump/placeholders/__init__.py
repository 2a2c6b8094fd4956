"""What LLDB is given in the place of a binary that nobody has."""
