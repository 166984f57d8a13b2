"""Which endpoints a path has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.telemetry.requests import REDIRECT_ROUTE
from app.web.after_slug import suffix_of
from app.web.endpoint import Endpoint, Route, template

# The parameter of a path that may have several segments.
SLUG = ":slug"
# A path that a route with a parameter would take, and that no link has: see `app.domain.slug.RESERVED`.
_NO_LINK = ["api", "v1", "links", "bulk"]


class RouteTable:
    """Finds the endpoints of a path: literal paths first, then those with parameters."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._literal: dict[str, dict[str, Endpoint]] = {}
        self._patterns: dict[tuple[str, ...], tuple[str, dict[str, Endpoint]]] = {}
        # Those with a slug, which may have several segments; the longest first.
        self._of_slugs: list[tuple[str, ...]] = []
        # A header that any endpoint reads is checked on all of them.
        self.headers = sorted({name for route in routes for name in route.endpoint.headers})
        self.list_headers = frozenset(name for route in routes for name in route.endpoint.list_headers)
        for route in routes:
            parts = tuple(route.path.split("/")[1:])
            if any(part.startswith(":") for part in parts):
                _, methods = self._patterns.setdefault(parts, (template(route.path), {}))
                methods[route.method] = route.endpoint
            else:
                self._literal.setdefault(route.path, {})[route.method] = route.endpoint
        of_slugs = (pattern for pattern in self._patterns if SLUG in pattern[1:])
        self._of_slugs = sorted(of_slugs, key=len, reverse=True)

    def is_before_slug(self, slug: str) -> bool:
        """Does a route own the path of *slug*, so that no link does?"""
        path = f"/{slug}"
        return path in self._literal or ("/" in slug and self.find(path) is not None)

    def template(self, path: str) -> str | None:
        """Return the route of *path* as OpenAPI writes it, such as `/{slug}`; None if it has none."""
        found = self.find(path)
        return None if found is None else found[0]

    def find(self, path: str) -> tuple[str, dict[str, Endpoint], Mapping[str, str]] | None:
        """Return the template of *path*, its endpoints by method, and its path parameters."""
        methods = self._literal.get(path)
        if methods is not None:
            return path, methods, {}
        parts = path.split("/")[1:]
        if parts[1:] == [""] and suffix_of(parts[0]):
            # A slash behind a slug is forgiven, so behind what follows one as well.
            parts.pop()
        if parts[: len(_NO_LINK)] == _NO_LINK:
            return None
        if not all(parts):
            return None
        for pattern in self._patterns:
            if len(pattern) == len(parts) and _fits(pattern, parts):
                return self._found(pattern, parts)
        for pattern in self._of_slugs:
            joined = _joined(pattern, parts)
            if _fits(pattern, joined):
                return self._found(pattern, joined)
        return None

    def _found(
        self, pattern: tuple[str, ...], parts: Sequence[str]
    ) -> tuple[str, dict[str, Endpoint], Mapping[str, str]]:
        route, methods = self._patterns[pattern]
        pairs = zip(pattern, parts, strict=True)
        suffix = suffix_of(parts[0]) if route == REDIRECT_ROUTE else ""
        return route + suffix, methods, {name[1:]: part for name, part in pairs if name.startswith(":")}


def _fits(pattern: tuple[str, ...], parts: Sequence[str]) -> bool:
    pairs = zip(pattern, parts, strict=True)
    return all(name == part or name.startswith(":") for name, part in pairs)


def _joined(pattern: tuple[str, ...], parts: list[str]) -> list[str]:
    """
    Return *parts* with those that the slug of *pattern* takes as one.

    Granian decodes `%2F`, as some proxies do, so the slug `a/b` is not told from two segments. What stands
    behind a slug is no last segment of one: see `app.domain.slug.RESERVED_LAST`.
    """
    start = pattern.index(SLUG)
    end = max(start + 1, len(parts) - (len(pattern) - start - 1))
    joined = [*parts[:start], "/".join(parts[start:end]), *parts[end:]]
    return joined if len(joined) == len(pattern) else [""] * len(pattern)
