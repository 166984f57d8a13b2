"""Embedded mode: the cache and the event bus in this process."""
