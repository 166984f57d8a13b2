"""Implementations of the ports, one file each: `<port>_<technology>.py`."""
