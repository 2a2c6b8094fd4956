"""The command `symcache load` in a user's own LLDB: what LLDB reads at its start, and what that asks for."""
