"""Servers that Hopgate is compared with."""
