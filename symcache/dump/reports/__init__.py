"""Crash reports of macOS, as text and as JSON."""
