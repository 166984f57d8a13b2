"""The data plane of the Hopgate gateway; the stub beside this file is its manual."""

from collections.abc import Sequence
from typing import TypeAlias

from hopgate_front._native import Front

__all__ = ["Front", "Limit", "Template"]

Template: TypeAlias = tuple[int, Sequence[tuple[str, str]], bytes]
Limit: TypeAlias = tuple[object, object | None]
