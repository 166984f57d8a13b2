"""Faults by what they break. A fault is a context manager: it breaks on entry and heals on exit."""
