"""Files of crash dumps: bytes in, values out. No debugger, no network."""
