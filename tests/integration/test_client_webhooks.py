"""Webhooks by both clients, with a real gateway that delivers to this machine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hopgate_client import errors

from tests.integration.client_calls import Clients
from tests.integration.conftest import EmbeddedGateway
from tests.servers.hooks import HookServer, verified
from tests.servers.hopgate import UNLIMITED, eventually, make_key

TARGET = "https://example.com/page"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    directory = tmp_path_factory.mktemp("hooks")
    settings = {
        "HOPGATE_DATA_DIR": str(directory / "data"),
        "HOPGATE_BASE_URL": "http://hop.example",
        "HOPGATE_WEBHOOKS_HTTP": "on",
        "HOPGATE_WEBHOOK_NETWORKS": "127.0.0.0/8",
        "HOPGATE_WEBHOOK_RETRIES": "1s",
        **UNLIMITED,
    }
    with EmbeddedGateway(settings, directory) as running:
        yield running


@pytest.fixture(scope="module", params=["sync", "async"])
def hopgate(request, gateway):
    clients = Clients(is_async=request.param == "async")
    yield clients(gateway.url, make_key(gateway.settings))
    clients.close()


@pytest.fixture
def server():
    with HookServer(
        lambda message: 500 if message.document["data"].get("title") == "bad" else 204
    ) as running:
        yield running


@pytest.fixture
def webhook(hopgate, server):
    made = hopgate.webhooks.create(server.url, name="crm", kinds=["link.created"])
    yield made
    hopgate.webhooks.remove(made.webhook_id)


def test_settings_and_secret(hopgate, webhook):
    name = webhook.webhook_id
    assert (webhook.name, webhook.kinds, webhook.enabled) == ("crm", ("link.created",), True)
    assert webhook.secret not in repr(webhook)

    changed = hopgate.webhooks.change(name, kinds=[], tag="x", enabled=False)
    assert (changed.kinds, changed.tag, changed.enabled) == ((), "x", False)
    assert hopgate.webhooks.change(name, tag=None).tag is None
    rotated = hopgate.webhooks.rotate(name, grace="1h")
    assert rotated.secret != webhook.secret
    assert rotated.old_secret_until > datetime.now(UTC)
    assert hopgate.webhooks.get(name) == hopgate.webhooks.list()[-1]
    with pytest.raises(errors.InvalidRequest):
        hopgate.webhooks.change(name, kinds=["never"])
    with pytest.raises(errors.NotFound):
        hopgate.webhooks.get("never")


def test_deliveries_are_listed_and_replayed(hopgate, webhook, server):
    name = webhook.webhook_id
    slugs = [hopgate.links.create(TARGET, title=title).slug for title in ("good", "bad")]

    def sent(slug):
        return [message.document["data"].get("slug") for message in server.messages].count(slug)

    def states():
        return {one.slug: one.state for one in hopgate.webhooks.deliveries(name, page_size=1)}

    eventually(
        lambda: [*states().values()] == ["dead", "delivered"], what="one delivered, one dead", every=0.2
    )
    bad, good = hopgate.webhooks.deliveries(name)
    assert [good.slug, bad.slug] == slugs
    assert (bad.status, bad.attempts, bad.kind) == (500, 2, "link.created")
    assert good.next_attempt_at is None
    # Links do not wait for each other.
    [message] = [one for one in server.messages if one.about[1] == good.slug]
    assert verified(message, webhook.secret)["data"]["title"] == "good"
    assert hopgate.webhooks.replay(name).replayed == 1
    eventually(lambda: sent(slugs[1]) >= 3, what="the replay")
    since = datetime.now(UTC) - timedelta(minutes=5)
    assert hopgate.webhooks.replay(name, since=since).replayed is None
    eventually(lambda: sent(slugs[0]) == 2, what="the events again")


def test_test_message(hopgate, webhook, server):
    tested = hopgate.webhooks.test(webhook.webhook_id)
    assert (tested.delivered, tested.status) == (True, 204)
    hopgate.webhooks.change(webhook.webhook_id, url="http://127.0.0.1:9/in")
    tested = hopgate.webhooks.test(webhook.webhook_id)
    assert (tested.delivered, tested.status) == (False, None)
    assert tested.problem
