"""Where visitors of a link go once it is over: the link's own page, that of its domain, or 410."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from app.domain.blocks import BlockIndex, blocked_host, blocked_slug
from app.domain.domains import Domain, DomainIndex, DomainSettings
from app.domain.link import Resolution, Slug
from app.domain.policy import TargetPolicy
from app.service.blocks import _concerns
from app.web.blocked import rendering
from app.web.response import ROBOTS, Response

OWN, OF_DOMAIN = "https://own.example/over", "https://domain.example/over"
LINK = Resolution(Slug("aaa"), 1, "https://example.com/", expires_at=10.0, expired_url=OWN, robots="noindex")
DISABLED = Resolution(Slug("aaa"), 1, expired_url=OWN)
REMOVED = Resolution(Slug("aaa"), 1)


def domains() -> DomainIndex:
    return DomainIndex(
        "http://hop.example",
        [
            Domain(domain_id=0, host="", settings=DomainSettings(expired_url=OF_DOMAIN)),
            Domain(domain_id=1, host="further.example"),
        ],
    )


def answer(resolution: Resolution, now: float, *blocks, known: DomainIndex | None = None) -> Response:
    policy = TargetPolicy(blocks=BlockIndex(blocks))
    return rendering(policy, "http://hop.example", known or DomainIndex("http://hop.example"))(
        resolution, now
    )


def where(response: Response) -> tuple[int, int, str | None]:
    return response.status, response.stands_for, dict(response.headers).get("location")


@pytest.mark.parametrize(
    ("resolution", "now", "found"),
    [
        (LINK, 9.0, (302, 0, "https://example.com/")),
        (LINK, 10.0, (302, 410, OWN)),
        (DISABLED, 0.0, (302, 410, OWN)),
        (REMOVED, 0.0, (410, 0, None)),
        (replace(LINK, valid_from=5.0), 4.0, (404, 0, None)),
    ],
)
def test_link_has_its_own_page_once_it_is_over(resolution, now, found):
    assert where(answer(resolution, now)) == found


def test_own_page_wins_over_that_of_the_domain():
    assert where(answer(DISABLED, 0.0, known=domains())) == (302, 410, OWN)
    assert where(answer(REMOVED, 0.0, known=domains())) == (302, 410, OF_DOMAIN)


@pytest.mark.parametrize("block", [blocked_host("own.example"), blocked_slug("aaa")])
def test_blocked_page_is_that_of_the_domain(block):
    assert where(answer(LINK, 10.0, block)) == (410, 0, None)
    assert where(answer(LINK, 10.0, block, known=domains())) == (302, 410, OF_DOMAIN)


def test_page_at_a_later_domain_is_that_of_the_domain():
    circle = replace(DISABLED, expired_url="https://further.example/aaa")

    assert where(answer(circle, 0.0, known=domains())) == (302, 410, OF_DOMAIN)
    assert where(answer(circle, 0.0)) == (302, 410, "https://further.example/aaa")


def test_quota_that_is_spent_has_the_page_ready():
    metered = answer(replace(LINK, metered=True), 9.0)

    assert metered.is_visit
    assert metered.exhausted == answer(LINK, 10.0)
    assert answer(LINK, 9.0).exhausted is None
    blocked = answer(replace(LINK, metered=True), 9.0, blocked_host("own.example"))
    assert (blocked.is_visit, blocked.exhausted) == (True, None)


def test_crawlers_get_the_rules_of_the_link():
    assert dict(answer(LINK, 9.0).headers)[ROBOTS] == "noindex"
    assert dict(answer(LINK, 10.0).headers)[ROBOTS] == "noindex"
    assert ROBOTS not in dict(answer(DISABLED, 0.0).headers)


def test_block_of_its_host_concerns_a_link_that_is_over():
    """Its answer is rendered anew."""
    assert _concerns(BlockIndex([blocked_host("own.example")]), DISABLED)
    assert not _concerns(BlockIndex([blocked_host("other.example")]), DISABLED)
