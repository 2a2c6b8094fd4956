"""Programs that take shared caches apart: Apple's in the guest, and our own here."""
