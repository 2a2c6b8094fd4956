"""Which builds of macOS are published, which of them a site wants, and where each can be had from."""
