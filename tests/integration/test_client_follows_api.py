"""The client has every member that the gateway's OpenAPI document has."""

from __future__ import annotations

import dataclasses
import inspect
from typing import get_type_hints

import httpx
import pytest
from hopgate_client import Hopgate, fields, models
from hopgate_client.sync.access import Keys

# What the API calls each model, if not the same.
ANSWERS = {
    "LinkDocument": models.Link,
    "DomainDocument": models.Domain,
    "KeyDocument": models.Key,
    "NewKey": models.NewKey,
    "Me": models.Me,
    "LinkStats": models.LinkStats,
    "OverallStats": models.OverallStats,
    "VisitCounts": models.VisitCounts,
    "ValueCount": models.ValueCount,
    "HourlyClicks": models.HourlyClicks,
    "LinkPage": models.LinkPage,
    "LinkHistoryPage": models.LinkHistory,
    "LinkChangeDocument": models.LinkChange,
    "BlockDocument": models.Block,
    "TagDocument": models.Tag,
    "Invalidated": models.Invalidated,
    "WebhookDocument": models.Webhook,
    "NewWebhook": models.NewWebhook,
    "DeliveryDocument": models.Delivery,
    "WebhookTest": models.WebhookTest,
    "Replay": models.Replay,
}
BODIES = {
    "CreateLink": fields.NewLink,
    "PatchLink": fields.LinkChanges,
    "PatchWebhook": fields.WebhookChanges,
}


@pytest.fixture(scope="module")
def description(embedded):
    return httpx.get(f"{embedded.url}/api/v1/openapi.json").raise_for_status().json()


@pytest.fixture(scope="module")
def properties(description):
    """The names of the members of a schema, in order."""

    def of(name):
        return list(description["components"]["schemas"][name]["properties"])

    return of


@pytest.mark.parametrize("name", ANSWERS)
def test_model_has_every_member_of_an_answer(properties, name):
    """In the same order, too: what the command line prints is the same here and elsewhere."""
    known = [one.name for one in dataclasses.fields(ANSWERS[name])]
    wanted = properties(name)

    assert {*wanted} <= {*known}, f"{ANSWERS[name].__name__} lacks {sorted({*wanted} - {*known})}"
    if name in {"LinkDocument", "DomainDocument", "KeyDocument", "LinkStats", "VisitCounts"}:
        assert known == wanted


@pytest.mark.parametrize("name", BODIES)
def test_call_takes_every_member_of_a_body(properties, name):
    assert {*get_type_hints(BODIES[name])} == {*properties(name)}


def test_calls_for_domains_take_every_setting(properties):
    settings = {*get_type_hints(fields.DomainSettings)}

    assert settings | {"host", "case_sensitive"} == {*properties("AddDomain")}
    assert settings == {*properties("PatchDomain")}


def test_call_for_keys_takes_every_member(properties):
    assert {*inspect.signature(Keys.create).parameters} - {"self"} == {*properties("CreateKey")}


def test_listings_take_every_filter(description):
    asked = {one["name"] for one in description["paths"]["/api/v1/links"]["get"]["parameters"]}

    # `limit`, `cursor` and `count` are of a page; links are whole, and never the same as before.
    assert {*get_type_hints(fields.Filters)} == asked - {
        "limit",
        "cursor",
        "count",
        "fields",
        "If-None-Match",
    }


def test_statistics_take_every_parameter(description):
    asked = {one["name"] for one in description["paths"]["/api/v1/stats"]["get"]["parameters"]}
    for call in (Hopgate.stats, Hopgate.stats_csv):
        assert {*inspect.signature(call).parameters} - {"self"} == asked - {"format"}


def test_member_of_a_later_gateway_is_ignored():
    read = models.read(models.Tag, {"tag": "a", "links": 1, "colour": "red"})
    assert read == models.Tag("a", 1)
