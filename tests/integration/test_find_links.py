"""Listings of links over HTTP: filters, search, orders, pages, and what is refused."""

from __future__ import annotations

import base64
import itertools
from urllib.parse import quote

import pytest

from tests.integration.api_calls import LINKS, create, fresh_slug, problem

_marks = itertools.count()


@pytest.fixture
def mark():
    """A tag that no other test gives."""
    return f"mark-{next(_marks)}"


def slugs(api, query: str | dict, **others) -> list[str]:
    answer = api.get(LINKS, params=query, **others)
    assert answer.status_code == 200, answer.text
    return [link["slug"] for link in answer.json()["links"]]


def refused(api, query, name, code):
    """Assert that *query* is refused for the parameter *name*."""
    answer = api.get(f"{LINKS}?{query}")
    errors = problem(answer, 422, "invalid")["errors"]
    assert (name, code) in [(one["field"], one["code"]) for one in errors], errors
    return errors


def test_tags_filter_by_any_all_and_none(api, mark):
    a = create(api, tags=[mark, "a"])["slug"]
    b = create(api, tags=[mark, "b"])["slug"]
    ab = create(api, tags=[mark, "a", "b"])["slug"]

    assert slugs(api, {"tags_all": mark}) == [ab, b, a]
    assert slugs(api, {"tags_all": [mark, "a", "b"]}) == [ab]
    assert slugs(api, {"tag": [f"{mark}-no", mark], "tags_none": "b"}) == [a]


def test_host_and_target_are_compared_in_canonical_form(api, mark):
    here = create(api, long_url="https://BÜCHER.example:8443/a b".replace(" ", "%20"), tags=[mark])["slug"]
    create(api, long_url="https://www.xn--bcher-kva.example/", tags=[mark])

    assert slugs(api, {"tag": mark, "host": "bücher.EXAMPLE"}) == [here]
    assert slugs(api, {"tag": mark, "long_url": "https://bücher.example:8443/a%20b"}) == [here]


def test_states_are_those_of_now(api, mark):
    live = create(api, tags=[mark])["slug"]
    pending = create(api, tags=[mark], valid_from="2100-01-01T00:00:00Z")["slug"]
    disabled = create(api, tags=[mark], enabled=False, valid_from="2100-01-01T00:00:00Z")["slug"]

    found = {
        state: slugs(api, {"tag": mark, "state": state})
        for state in ("live", "pending", "disabled", "expired")
    }

    assert found == {"live": [live], "pending": [pending], "disabled": [disabled], "expired": []}
    assert slugs(api, {"tag": mark, "state": ["live", "disabled"]}) == [disabled, live]


def test_times_may_have_any_offset(api, mark):
    link = create(api, tags=[mark], expires_at="2090-06-01T12:00:00Z")["slug"]

    assert slugs(api, {"tag": mark, "expires_since": "2090-06-01T14:00:00+02:00"}) == [link]
    assert slugs(api, {"tag": mark, "expires_since": "2090-06-01T12:00:00.000001Z"}) == []
    assert slugs(api, {"tag": mark, "expires_until": "2090-06-01T12:00:00Z"}) == []
    assert slugs(api, {"tag": mark, "created_since": "2000-01-01T00:00:00Z"}) == [link]


@pytest.mark.parametrize(
    ("fields", "search"),
    [
        ({"title": "Spring Sale"}, "SPRING"),
        ({"title": "Spring Sale"}, "ring sal"),
        ({"title": "Straße"}, "STRASSE"),
        ({"title": "STRAẞE"}, "straße"),
        ({"title": "été"}, "e\u0301te\u0301"),
        ({"title": "ΟΔΟΣ"}, "οδος"),
        ({"title": "ﬁrst"}, "FIRST"),
        ({"title": "🦆🦆🦆 ducks"}, "🦆🦆🦆"),
        ({"title": "50%_off\\now"}, "%_off\\"),
        ({"title": 'say "hi" o\'clock'}, '"hi" o\'c'),
        ({"long_url": "https://search-me.example/Path"}, "me.example/path"),
        ({"tags": ["Förder-Programm"]}, "FÖRDER-"),
    ],
)
def test_search_finds_folded_parts_of_every_text(api, mark, fields, search):
    link = create(api, **{**fields, "tags": [mark, *fields.get("tags", [])]})["slug"]
    create(api, tags=[mark], title="another")

    assert slugs(api, {"tag": mark, "search": search}) == [link]


@pytest.mark.parametrize(
    "search", ["%%%", "___", "a_b", "a%b", "\\\\\\", "***", '"a"', "axb* abcd", "a\u0301bcd"]
)
def test_search_takes_no_character_for_an_operator(api, mark, search):
    create(api, tags=[mark], title="axb ab OR abcd")

    assert slugs(api, {"tag": mark, "search": search}) == []


def test_search_terms_span_no_texts(api, mark):
    create(api, tags=[mark, "onward"], title="spring")

    assert slugs(api, {"tag": mark, "search": "springhttps"}) == []
    assert len(slugs(api, {"tag": mark, "search": "spring onward"})) == 1


def test_changed_texts_are_found_at_once(api, mark):
    slug = create(api, tags=[mark], title="before")["slug"]
    assert api.patch(f"{LINKS}/{slug}", json={"title": "later"}).status_code == 200

    assert slugs(api, {"tag": mark, "search": "before"}) == []
    assert slugs(api, {"tag": mark, "search": "later"}) == [slug]

    assert api.delete(f"{LINKS}/{slug}").status_code == 204
    assert slugs(api, {"tag": mark}) == slugs(api, {"search": mark}) == []


@pytest.mark.parametrize("sort", ["created", "updated", "clicks", "title", "slug"])
@pytest.mark.parametrize("sign", ["", "-"])
def test_pages_of_an_order_hold_each_link_once(api, mark, sort, sign):
    made = [create(api, slug=f"{mark}-{n}", tags=[mark], title=f"t{n * 7 % 3}") for n in range(7)]

    seen = []
    cursor = None
    while True:
        query = {"tag": mark, "sort": sign + sort, "limit": 3, **({"cursor": cursor} if cursor else {})}
        page = api.get(LINKS, params=query).json()
        seen += page["links"]
        if (cursor := page["next_cursor"]) is None:
            break

    names = {"created": "created_at", "updated": "updated_at", "clicks": "visits"}
    keys = [link[names.get(sort, sort)] for link in seen]
    assert sorted(link["slug"] for link in seen) == sorted(link["slug"] for link in made)
    assert keys == sorted(keys, reverse=sign == "-")


def test_pages_are_stable_while_links_are_made(api, mark):
    made = [create(api, tags=[mark])["slug"] for _ in range(4)]
    first = api.get(LINKS, params={"tag": mark, "limit": 2}).json()
    create(api, tags=[mark])

    assert slugs(api, {"tag": mark, "limit": 9, "cursor": first["next_cursor"]}) == made[1::-1]


def test_fields_and_count_may_change_from_page_to_page(api, mark):
    for _ in range(3):
        create(api, tags=[mark])
    first = api.get(
        LINKS, params={"tag": mark, "limit": 2, "count": "true", "fields": "slug,long_url"}
    ).json()
    query = {"tag": mark, "limit": 5, "cursor": first["next_cursor"], "fields": "version"}
    second = api.get(LINKS, params=query).json()

    assert [set(link) for link in first["links"]] == [{"slug", "long_url"}] * 2
    assert first["count"] == 3
    assert second == {"links": [{"version": 1}], "next_cursor": None}


def test_cursor_of_an_earlier_release_continues(api):
    made = [create(api)["slug"] for _ in range(3)]
    cursor = api.get(LINKS, params={"limit": 1}).json()["next_cursor"]

    number = int(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    assert number > 0
    assert slugs(api, {"limit": 2, "cursor": cursor}) == made[1::-1]


def test_cursor_of_another_listing_is_refused(api, mark):
    for n in range(3):
        create(api, tags=[mark, "x"], title=f"{n}")
    cursor = api.get(LINKS, params={"tag": mark, "sort": "title", "limit": 1}).json()["next_cursor"]
    plain = api.get(LINKS, params={"limit": 1}).json()["next_cursor"]

    assert len(slugs(api, {"tag": [mark, mark], "sort": "title", "cursor": cursor})) == 2
    for query in (
        f"tag={mark}&sort=-title&cursor={cursor}",
        f"tag={mark}&cursor={cursor}",
        f"tag={mark}&tag=x&sort=title&cursor={cursor}",
        f"sort=title&cursor={cursor}",
        f"cursor={cursor}",
        f"tag={mark}&cursor={plain}",
        f"sort=created&cursor={plain}",
    ):
        refused(api, query, "cursor", "cursor_invalid")


def test_changed_cursor_is_refused(api, mark):
    for n in range(3):
        create(api, tags=[mark], title=f"{n}")
    query = f"tag={mark}&sort=title&limit=1"
    cursor = api.get(f"{LINKS}?{query}").json()["next_cursor"]

    for place in range(len(cursor)):
        changed = f"{cursor[:place]}{'A' if cursor[place] != 'A' else 'B'}{cursor[place + 1 :]}"
        answer = api.get(f"{LINKS}?{query}&cursor={changed}")
        assert answer.status_code == 422, changed
    for other in ("", "q", cursor[:-4], f"{cursor}AAAA", "q" + "A" * 40, "%00", "ä"):
        refused(api, f"{query}&cursor={other}", "cursor", "cursor_invalid")


@pytest.mark.parametrize(
    ("query", "name", "code"),
    [
        ("limit=0", "limit", "limit_invalid"),
        ("limit=201", "limit", "limit_invalid"),
        ("limit=", "limit", "limit_invalid"),
        ("tag=", "tag", "tag_invalid"),
        ("tag=%00", "tag", "tag_invalid"),
        (f"tags_all={'x' * 65}", "tags_all", "tag_invalid"),
        ("tags_none=a%0Ab", "tags_none", "tag_invalid"),
        ("&".join(f"tag={n}" for n in range(21)), "tag", "tags_too_many"),
        ("tags_all=a&tags_none=a", "tags_none", "contradiction"),
        ("tag=a&tags_none=a&tags_none=b", "tags_none", "contradiction"),
        ("host=", "host", "url_scheme"),
        ("host=a.example:80", "host", "url_host"),
        ("host=https://a.example", "host", "url_host"),
        ("host=a.example/x", "host", "url_host"),
        ("host=u@a.example", "host", "url_host"),
        ("host=a%00b", "host", "url_forbidden_character"),
        ("host=a..b", "host", "url_host"),
        ("host=" + "0" * 254, "host", "url_host"),
        ("long_url=", "long_url", "url_empty"),
        ("long_url=a.example", "long_url", "url_scheme"),
        ("state=gone", "state", "state_invalid"),
        ("state=", "state", "state_invalid"),
        ("state=live&state=LIVE", "state", "state_invalid"),
        ("created_since=yesterday", "created_since", "time_unreadable"),
        ("created_since=2030-01-01T00:00:00", "created_since", "time_without_zone"),
        ("created_until=2030-01-01T00:00:00+02:00", "created_until", "time_unreadable"),
        ("updated_since=1999-01-01T00:00:00Z", "updated_since", "time_out_of_range"),
        ("updated_until=2030-02-30T00:00:00Z", "updated_until", "time_unreadable"),
        (
            "expires_since=2031-01-01T00:00:00Z&expires_until=2030-01-01T00:00:00Z",
            "expires_until",
            "range_empty",
        ),
        (
            "created_since=2031-01-01T00:00:00Z&created_until=2031-01-01T00:00:00Z",
            "created_until",
            "range_empty",
        ),
        ("search=", "search", "search_empty"),
        ("search=+++", "search", "search_empty"),
        ("search=ab", "search", "search_too_short"),
        ("search=abc+de", "search", "search_too_short"),
        ("search=e%CC%81t", "search", "search_too_short"),
        (f"search={'x' * 257}", "search", "search_too_long"),
        ("search=" + "+".join(f"abc{n}" for n in range(9)), "search", "search_too_many"),
        ("search=abc%00", "search", "search_invalid"),
        ("sort=id", "sort", "sort_invalid"),
        ("sort=--title", "sort", "sort_invalid"),
        ("sort=", "sort", "sort_invalid"),
        ("fields=", "fields", "field_unknown"),
        ("fields=slug,", "fields", "field_unknown"),
        ("fields=slug,secret", "fields", "field_unknown"),
        ("count=yes", "count", "flag_invalid"),
        ("sort=title&sort=title", "sort", "repeated_parameter"),
        ("search=abc&search=def", "search", "repeated_parameter"),
        ("holder=x", "holder", "unknown_parameter"),
    ],
)
def test_wrong_parameter_is_named(api, query, name, code):
    refused(api, query, name, code)


def test_every_wrong_parameter_is_named_at_once(api):
    errors = refused(api, "limit=0&state=x&count=1", "limit", "limit_invalid")

    assert [one["field"] for one in errors] == ["limit", "count", "state"]


def test_tags_are_listed_with_their_links(api, mark):
    create(api, tags=[f"{mark}-b", f"{mark}-a"])
    create(api, tags=[f"{mark}-b"])
    gone = create(api, tags=[f"{mark}-b"])["slug"]
    api.delete(f"{LINKS}/{gone}")

    tags = all_tags(api)

    assert [(tag, n) for tag, n in tags if tag.startswith(mark)] == [(f"{mark}-a", 1), (f"{mark}-b", 2)]
    assert tags == sorted(tags)


def all_tags(api) -> list[tuple[str, int]]:
    found = []
    cursor = None
    while True:
        page = api.get("/api/v1/tags", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        found += [(one["tag"], one["links"]) for one in page["tags"]]
        if (cursor := page["next_cursor"]) is None:
            return found


def test_renamed_tag_merges_into_another(api, visitor, mark):
    old, new = f"{mark}/ü?&", f"{mark}-new"
    only = create(api, tags=["x", old, "y"])
    both = create(api, tags=[new, old])
    none = create(api, tags=[new])

    answer = api.patch(f"/api/v1/tags?tag={quote(old, safe='')}", json={"name": new})

    assert (answer.status_code, answer.json()) == (200, {"changed": 2, "done": True})
    after = {link["slug"]: api.get(f"{LINKS}/{link['slug']}").json() for link in (only, both, none)}
    assert after[only["slug"]]["tags"] == ["x", new, "y"]
    assert after[both["slug"]]["tags"] == [new]
    assert [after[link["slug"]]["version"] for link in (only, both, none)] == [2, 2, 1]
    assert [tag for tag, _ in all_tags(api) if tag.startswith(mark)] == [new]
    assert api.patch("/api/v1/tags", params={"tag": old}, json={"name": new}).json()["changed"] == 0


def test_removed_tag_is_on_no_link(api, mark):
    slug = create(api, tags=[mark, "x"])["slug"]

    assert api.delete("/api/v1/tags", params={"tag": mark}).json() == {"changed": 1, "done": True}

    assert api.get(f"{LINKS}/{slug}").json()["tags"] == ["x"]
    assert slugs(api, {"tag": mark}) == []


def test_tag_of_many_links_is_renamed_in_batches(api, mark):
    for _ in range(450):
        create(api, tags=[mark])

    answer = api.patch("/api/v1/tags", params={"tag": mark}, json={"name": f"{mark}-new"})

    assert answer.json() == {"changed": 450, "done": True}
    assert api.get(LINKS, params={"tag": f"{mark}-new", "limit": 1, "count": "true"}).json()["count"] == 450


@pytest.mark.parametrize(
    ("method", "query", "body", "field"),
    [
        ("PATCH", "", {"name": "x"}, "tag"),
        ("PATCH", "tag=", {"name": "x"}, "tag"),
        ("PATCH", "tag=x", {"name": ""}, "name"),
        ("PATCH", "tag=x", {"name": "x"}, "name"),
        ("PATCH", "tag=x", {"name": "a\nb"}, "name"),
        ("PATCH", "tag=x", {}, "body"),
        ("DELETE", "tag=%00", None, "tag"),
        ("DELETE", "tag=a&tag=b", None, "tag"),
        ("GET", "cursor=qAAAAAAAAAAAAAAAAAAAA", None, "cursor"),
        ("GET", "cursor=MTIz", None, "cursor"),
    ],
)
def test_wrong_change_of_a_tag_is_refused(api, method, query, body, field):
    answer = api.request(method, f"/api/v1/tags?{query}", **({"json": body} if body is not None else {}))

    assert field in [one["field"] for one in problem(answer, 422, "invalid")["errors"]]


def test_slug_named_like_a_parameter_is_searched(api):
    slug = fresh_slug() + "-q"
    create(api, slug=slug)

    assert slugs(api, {"search": slug.upper()}) == [slug]
