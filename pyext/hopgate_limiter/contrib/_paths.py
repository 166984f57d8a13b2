"""Which rule a path has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Final, Generic, TypeVar

T = TypeVar("T")

_PARAMETER = re.compile(r"\{[^{}/]*\}|\*$")


class NoRule(Enum):
    """No rule matches: None would be a rule, too."""

    FOUND = "no rule"


# Looking a member of an Enum up costs as much as looking a path up.
NO_RULE: Final = NoRule.FOUND


class PathRules(Generic[T]):
    """
    A table of patterns: a path, after a method and a space if the rule is for that method alone.

    A `{name}` stands for one segment, a `*` at the end for anything. "/static/*" also matches "/static". An
    exact path wins over a pattern, a rule for a method over one for all, an earlier pattern over a later one.
    """

    def __init__(self, rules: Mapping[str, T]) -> None:
        """
        Read the patterns.

        Raises:
            ValueError: a path without a slash before it, a `*` elsewhere.
        """
        self._exact: dict[tuple[str, str], T] = {}
        self._patterns: list[tuple[str, re.Pattern[str], T]] = []
        for text, rule in rules.items():
            if not isinstance(text, str):
                raise TypeError(f"a rule must be str, as 'GET /path', not {type(text).__name__}")
            method, _, path = text.rpartition(" ")
            if not path.startswith(("/", "*")) or "*" in path[:-1]:
                raise ValueError(f"a rule must be '[METHOD ]/path', with * only at its end, got {text!r}")
            if _PARAMETER.search(path):
                self._patterns.append((method.upper(), _compiled(path), rule))
            else:
                self._exact[method.upper(), path] = rule
        # Rules for one method before those for all; otherwise in order.
        self._patterns.sort(key=lambda pattern: not pattern[0])

    def __bool__(self) -> bool:
        return bool(self._exact) or bool(self._patterns)

    def find(self, method: str, path: str) -> T | NoRule:
        """Return the rule of a request."""
        # What limits GET limits HEAD, unless HEAD has a rule of its own.
        methods = ("HEAD", "GET", "") if method == "HEAD" else (method, "")
        if self._exact:
            for only in methods:
                found = self._exact.get((only, path), NO_RULE)
                if found is not NO_RULE:
                    return found
        for only, pattern, rule in self._patterns:
            if only in methods and pattern.fullmatch(path):
                return rule
        return NO_RULE


def _compiled(path: str) -> re.Pattern[str]:
    end = ""
    if path.endswith("/*") and path != "/*":
        path, end = path[:-2], "(?:/.*)?"
    elif path.endswith("*"):
        path, end = path[:-1], ".*"
    segments = re.split(r"\{[^{}/]*\}", path)
    return re.compile("[^/]+".join(map(re.escape, segments)) + end, re.DOTALL)
