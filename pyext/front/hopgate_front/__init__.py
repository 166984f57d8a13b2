"""The data plane of the Hopgate gateway; the stub beside this file is its manual."""

from collections.abc import Sequence
from typing import TypeAlias

from hopgate_front._native import Front, check_tls, intent_of, with_query

__all__ = [
    "Front",
    "Limit",
    "Origin",
    "Page",
    "Record",
    "Row",
    "Template",
    "VisitKind",
    "Watch",
    "Words",
    "check_tls",
    "intent_of",
    "with_query",
]

Page: TypeAlias = tuple[Sequence[tuple[str, str]], bytes]
Template: TypeAlias = tuple[int, Sequence[tuple[str, str]], bytes, Page | None]
Limit: TypeAlias = tuple[object, object | None]
Watch: TypeAlias = tuple[tuple[int, bool, float] | None, int | None, int]
Origin: TypeAlias = tuple[int, int, float, str, str]
Record: TypeAlias = tuple[
    tuple[int, int, int, str],
    tuple[float, float, int],
    tuple[bool, bool, bool, bool],
    tuple[str, str],
    tuple[str, str],
]
Row: TypeAlias = tuple[
    str,
    int,
    str | None,
    bool,
    int,
    tuple[float, float, float, float],
    tuple[str | None, str | None] | None,
]
VisitKind: TypeAlias = tuple[str, str, str, str, str, str, str]
Words: TypeAlias = tuple[Sequence[str], Sequence[str]]
