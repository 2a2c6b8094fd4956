"""Programs that extract images from shared caches: Apple's in the guest, and our own on this machine."""
