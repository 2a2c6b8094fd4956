"""Which builds of macOS are published, which of them a site wants, and which source has each."""
