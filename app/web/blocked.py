"""The answer to a visit whose redirect the operator does not let through."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from app.domain.domains import DomainIndex
from app.domain.link import Resolution
from app.domain.policy import TargetPolicy
from app.web import errors
from app.web.redirects import DEFAULT_ONLY, page_of, render
from app.web.response import Response


def blocked_answer(public_url: str) -> Response:
    """451, in the name of the service at *public_url*."""
    return errors.blocked(f"{public_url}/")


def rendering(
    policy: TargetPolicy, public_url: str, domains: DomainIndex = DEFAULT_ONLY
) -> Callable[[Resolution, float], Response]:
    """
    Return `render`, except that *policy* and *domains* have their say.

    *policy* decides over each redirect: it is the last to see its target. Where the link's own page for the
    time after it may not be, that of its domain takes its place.
    """
    blocked = blocked_answer(public_url)
    allows = policy.allows

    def render_allowed(resolution: Resolution, now: float) -> Response:
        expired = resolution.expired_url
        if expired is not None and not (allows(resolution.slug, expired) and not domains.has_target(expired)):
            resolution = replace(resolution, expired_url=None)
        answer = render(resolution, now)
        # `render` puts the target first.
        if answer.is_visit and not allows(resolution.slug, answer.headers[0][1]):
            return blocked
        return page_of(domains, resolution.slug, answer)

    return render_allowed
