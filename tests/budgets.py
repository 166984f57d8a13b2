"""How many examples a property gets: what it states in `make test`, thirty times that in `make test-long`."""

from __future__ import annotations

from hypothesis import settings

# The default of a property that states none, and what stated numbers relate to.
STATED = 100
LONG = 30 * STATED


def examples(stated: int) -> int:
    """Return *stated*, or more in a profile with more examples."""
    return stated * settings().max_examples // STATED
