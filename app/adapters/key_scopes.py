"""How the scopes of API keys are stored, so that an earlier release never lets a restricted key do more."""

from __future__ import annotations

from collections.abc import Iterable

from app.ports import ApiKey

# A release that knows no restrictions knows no scope of this name either: the key may do nothing there.
_MARK = "restricted:"


def stored_scopes(key: ApiKey) -> list[str]:
    """Return the scopes of *key* as its row has them."""
    return sorted(f"{_MARK}{scope}" if key.is_restricted else scope for scope in key.scopes)


def read_scopes(stored: Iterable[str]) -> frozenset[str]:
    """Return the scopes in a row."""
    return frozenset(scope.removeprefix(_MARK) for scope in stored)
