"""The declarations of the routes, joined with what depends on them."""

from __future__ import annotations

from app.domain.slug import RESERVED, RESERVED_BELOW, RESERVED_LAST
from app.resilience.admission import WorkKind
from app.web.dialects import CHUNKED
from tests.unit.declared_routes import declared_routes

# Paths of pages to come, which no link must claim before.
TO_COME = {"console", ".well-known"}
# What stands in the API where a slug does, or will.
IN_THE_API = {"bulk"}


def test_paths_of_the_service_are_reserved_as_slugs():
    """A link with such a slug could be created, and would never be visited. Every other word is free."""
    first = {route.path.split("/")[1] for route in declared_routes()} - {":slug", ""}

    assert first >= {"api", "healthz", "readyz", "metrics", "status", "robots.txt"}
    assert not first & TO_COME
    assert first | TO_COME | IN_THE_API == RESERVED


def test_what_dialects_have_routes_below_is_no_first_segment():
    below = {path.split("/")[1] for path in CHUNKED.values()}
    paths = [route.path.split("/")[1:] for route in declared_routes(dialects={"bitly", "shlink", "yourls"})]

    assert {first for first, *more in paths if more} - {"api", "console"} == below == RESERVED_BELOW


def test_what_stands_behind_a_slug_in_the_api_is_no_last_segment():
    """The link `a/stats` could not be told from the statistics of `a`."""
    paths = (route.path.partition("/:slug/") for route in declared_routes())
    behind = {after for _, mark, after in paths if mark}

    assert behind >= {"stats", "history", "undo"}
    assert behind <= RESERVED_LAST


def test_api_endpoints_declare_operations():
    for route in declared_routes():
        in_api = route.path.startswith("/api/") and route.endpoint.name != "describe"
        assert (route.endpoint.operation is not None) == in_api, route.path


def test_admission_sheds_writes_as_writes():
    kinds = {
        route.endpoint.name: route.endpoint.operation.work
        for route in declared_routes()
        if route.endpoint.operation
    }

    assert kinds == {
        "create_link": WorkKind.WRITE,
        "add_alias": WorkKind.WRITE,
        "remove_alias": WorkKind.WRITE,
        "rename_link": WorkKind.WRITE,
        "create_links": WorkKind.LIST,
        "change_links": WorkKind.LIST,
        "remove_links": WorkKind.LIST,
        "list_keys": WorkKind.LIST,
        "create_key": WorkKind.LIST,
        "revoke_key": WorkKind.LIST,
        "rotate_key": WorkKind.LIST,
        "get_me": WorkKind.LIST,
        "change_link": WorkKind.WRITE,
        "remove_link": WorkKind.WRITE,
        "get_link_history": WorkKind.LIST,
        "get_link_qr": WorkKind.LIST,
        "undo_link": WorkKind.WRITE,
        "list_links": WorkKind.LIST,
        "list_tags": WorkKind.LIST,
        "rename_tag": WorkKind.WRITE,
        "remove_tag": WorkKind.WRITE,
        "get_link": WorkKind.LIST,
        "get_link_stats": WorkKind.LIST,
        "get_stats": WorkKind.LIST,
        "invalidate": WorkKind.LIST,
        "add_blocks": WorkKind.WRITE,
        "export_links": WorkKind.LIST,
        "import_links": WorkKind.LIST,
        "list_domains": WorkKind.LIST,
        "add_domain": WorkKind.WRITE,
        "get_domain": WorkKind.LIST,
        "change_domain": WorkKind.WRITE,
        "remove_domain": WorkKind.WRITE,
        "list_blocks": WorkKind.LIST,
        "list_webhooks": WorkKind.LIST,
        "add_webhook": WorkKind.WRITE,
        "get_webhook": WorkKind.LIST,
        "change_webhook": WorkKind.WRITE,
        "remove_webhook": WorkKind.WRITE,
        "rotate_webhook": WorkKind.WRITE,
        "list_deliveries": WorkKind.LIST,
        "replay_webhook": WorkKind.WRITE,
        "test_webhook": WorkKind.WRITE,
        "follow_events": WorkKind.LIST,
        "unblock_host": WorkKind.WRITE,
        "unblock_slug": WorkKind.WRITE,
    }


def test_operations_fit_the_method():
    """A body is declared where one is read, and not for GET."""
    for route in declared_routes():
        operation = route.endpoint.operation
        if operation is not None:
            reads = route.method in {"POST", "PATCH"} or route.endpoint.name == "remove_links"
            reads = reads and route.endpoint.name not in {"undo_link", "test_webhook"}
            assert (operation.body is not None or bool(operation.takes)) == reads
