"""Hopgate: a URL shortener and redirect gateway."""

__version__ = "0.1.0"
