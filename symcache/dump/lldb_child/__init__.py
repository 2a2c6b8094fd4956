"""LLDB in a child process: finding it, running it, and what runs in it."""
