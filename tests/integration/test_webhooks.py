"""Webhooks over HTTP, on an embedded gateway: settings, deliveries, signatures, and servers that fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from standardwebhooks.webhooks import WebhookVerificationError

from tests.integration.api_calls import LINKS, create, fresh_slug, problem
from tests.integration.conftest import EmbeddedGateway
from tests.servers.hooks import HookServer, verified
from tests.servers.hopgate import UNLIMITED, eventually, make_key

HOOKS = "/api/v1/webhooks"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedGateway]:
    """A gateway that may deliver to this machine, and tries again soon."""
    directory = tmp_path_factory.mktemp("hooks")
    settings = {
        "HOPGATE_DATA_DIR": str(directory / "data"),
        "HOPGATE_BASE_URL": "http://hop.example",
        "HOPGATE_WEBHOOKS_HTTP": "on",
        "HOPGATE_WEBHOOK_NETWORKS": "127.0.0.0/8",
        "HOPGATE_WEBHOOK_RETRIES": "1s 1s",
        "HOPGATE_WEBHOOK_TIMEOUT_S": "2",
        **UNLIMITED,
    }
    with EmbeddedGateway(settings, directory) as running:
        yield running


@pytest.fixture(scope="module")
def key(gateway: EmbeddedGateway) -> str:
    return make_key(gateway.settings)


@pytest.fixture
def api(gateway: EmbeddedGateway, key: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, headers={"Authorization": f"Bearer {key}"}, timeout=10) as client:
        yield client
        for one in client.get(HOOKS).json()["webhooks"]:
            client.delete(f"{HOOKS}/{one['webhook_id']}")


def hooked(api: httpx.Client, server: HookServer, **more: object) -> dict:
    answer = api.post(HOOKS, json={"url": server.url, **more})
    assert answer.status_code == 201, answer.text
    return answer.json()


def deliveries(api: httpx.Client, webhook: dict) -> list[dict]:
    answer = api.get(f"{HOOKS}/{webhook['webhook_id']}/deliveries")
    assert answer.status_code == 200, answer.text
    return answer.json()["deliveries"]


def test_life_of_a_link_is_delivered_in_order_and_signed(api):
    slug = fresh_slug()
    with HookServer() as server:
        webhook = hooked(api, server, name="crm")
        made = create(api, slug=slug, title="one")
        changed = api.patch(f"{LINKS}/{slug}", json={"title": "two"}).json()
        assert api.delete(f"{LINKS}/{slug}").status_code == 204
        eventually(lambda: len(server.messages) >= 3, what="three messages")

    assert server.about(slug) == [("link.created", 1), ("link.changed", 2), ("link.removed", 3)]
    first, second, _ = (verified(message, webhook["secret"]) for message in server.messages)
    assert first == {"type": "link.created", "timestamp": made["updated_at"], "data": made}
    assert second["data"] == changed
    assert len({message.headers["webhook-id"] for message in server.messages}) == 3
    assert {message.headers["content-type"] for message in server.messages} == {"application/json"}
    with pytest.raises(WebhookVerificationError):
        verified(server.messages[0], "whsec_" + "A" * 44)


def test_secret_is_shown_once(api):
    with HookServer() as server:
        webhook = hooked(api, server)

        assert webhook["secret"].startswith("whsec_")
        shown = api.get(f"{HOOKS}/{webhook['webhook_id']}").json()
        assert shown == {name: value for name, value in webhook.items() if name != "secret"}
        assert "whsec_" not in api.get(HOOKS).text


def test_rotated_webhook_signs_with_both_secrets_for_a_while(api):
    with HookServer() as server:
        webhook = hooked(api, server)
        path = f"{HOOKS}/{webhook['webhook_id']}"
        new = api.post(f"{path}/rotate", json={"grace": "1h"}).json()["secret"]
        assert new != webhook["secret"]
        create(api)
        eventually(lambda: server.messages, what="a message")
        verified(server.messages[0], webhook["secret"])
        verified(server.messages[0], new)

        newest = api.post(f"{path}/rotate", json={"grace": "0"}).json()["secret"]
        assert api.post(f"{path}/test").json() == {"delivered": True, "status": 204, "problem": None}
        verified(server.messages[1], newest)
        for old in (webhook["secret"], new):
            with pytest.raises(WebhookVerificationError):
                verified(server.messages[1], old)


def test_filters_choose_events(api):
    with HookServer() as server:
        hooked(api, server, kinds=["link.changed"], tag="wanted", domain="hop.example")
        other, wanted = fresh_slug(), fresh_slug()
        create(api, slug=other)
        create(api, slug=wanted, tags=["wanted"])
        for slug in (other, wanted):
            api.patch(f"{LINKS}/{slug}", json={"title": "x"})
        eventually(lambda: server.messages, what="a message")

    assert server.by_slug() == {wanted: [("link.changed", 2)]}


def test_failed_delivery_is_repeated_and_keeps_its_link_in_order(api):
    slug = fresh_slug()
    failing = iter([500, 0])
    with HookServer(lambda message: next(failing, 204) if message.about[1] == slug else 204) as server:
        webhook = hooked(api, server)
        create(api, slug=slug)
        api.patch(f"{LINKS}/{slug}", json={"title": "x"})
        create(api)
        eventually(lambda: len(server.messages) == 5, what="five messages")

        about = [message.about[::2] for message in server.messages if message.about[1] == slug]
        assert about == [("link.created", 1)] * 3 + [("link.changed", 2)]
        ids = [message.headers["webhook-id"] for message in server.messages if message.about[1] == slug]
        assert len(set(ids[:3])) == 1
        eventually(lambda: {one["state"] for one in deliveries(api, webhook)} == {"delivered"})
        assert [one["attempts"] for one in deliveries(api, webhook)][-1] == 3


def test_dead_delivery_is_listed_and_replayed(api):
    answers = iter([500, 503, 302])
    with HookServer(lambda _: next(answers, 204)) as server:
        webhook = hooked(api, server)
        slug = create(api)["slug"]
        api.patch(f"{LINKS}/{slug}", json={"title": "x"})
        eventually(lambda: len(server.messages) == 4, what="four messages")
        eventually(lambda: [one["state"] for one in deliveries(api, webhook)] == ["delivered", "dead"])
        dead = deliveries(api, webhook)[1]
        assert (dead["attempts"], dead["status"], dead["kind"]) == (3, 302, "link.created")
        assert dead["problem"] == "a redirect is not followed"
        assert dead["next_attempt_at"] is None

        answer = api.post(f"{HOOKS}/{webhook['webhook_id']}/replay", json={})
        assert answer.json() == {"replayed": 1}
        eventually(lambda: len(server.messages) == 5, what="the replay")
    assert server.messages[4].headers["webhook-id"] == dead["id"]


def test_events_from_a_time_on_are_replayed(api):
    with HookServer() as server:
        webhook = hooked(api, server)
        slugs = [create(api)["slug"] for _ in range(3)]
        eventually(lambda: len(server.messages) == 3, what="three messages")
        since = api.get(f"{LINKS}/{slugs[1]}").json()["created_at"]
        path = f"{HOOKS}/{webhook['webhook_id']}/replay"
        eventually(lambda: {one["state"] for one in deliveries(api, webhook)} == {"delivered"})

        assert api.post(path, json={"since": since}).json() == {"replayed": None}

        eventually(lambda: len(server.messages) == 5, what="two replays")
    # In order by link, and each link has one.
    assert {message.about[1] for message in server.messages[3:]} == set(slugs[1:])
    problem(api.post(path, json={"since": "2030-01-31T12:00:00"}), 422, "invalid")


def test_disabled_webhook_waits(api):
    with HookServer() as server:
        webhook = hooked(api, server, enabled=False)
        create(api)
        other = hooked(api, server, name="other")
        create(api)
        eventually(lambda: len(server.messages) == 1, what="that of the other")

        answer = api.patch(f"{HOOKS}/{webhook['webhook_id']}", json={"enabled": True})
        assert answer.json()["enabled"]
        eventually(lambda: len(server.messages) == 3, what="what it has missed")
        assert other["enabled"]


def test_receiver_that_is_gone_disables_its_webhook(gateway, api, cli):
    status = 410
    with HookServer(lambda _: status, headers={"Retry-After": "1"}) as server:
        webhook = hooked(api, server)
        path = f"{HOOKS}/{webhook['webhook_id']}"
        assert (webhook["enabled"], webhook["disabled_reason"]) == (True, None)
        slug = create(api)["slug"]
        eventually(lambda: not api.get(path).json()["enabled"], what="it is disabled")

        assert api.get(path).json()["disabled_reason"] == "receiver_gone"
        listed = cli(gateway.settings, "webhooks", "list").stdout
        assert f"{server.url}  (disabled: the receiver answers 410)" in listed
        [waiting] = deliveries(api, webhook)
        assert (waiting["state"], waiting["status"]) == ("pending", 410)

        status = 204
        again = api.patch(path, json={"enabled": True}).json()
        assert (again["enabled"], again["disabled_reason"]) == (True, None)
        eventually(lambda: deliveries(api, webhook)[0]["state"] == "delivered", what="what has waited")
    assert {message.about[1] for message in server.messages} == {slug}


def test_slow_and_dead_servers_delay_no_others(api):
    with HookServer(slow_s=60) as slow, HookServer() as well:
        hooked(api, slow)
        answer = api.post(HOOKS, json={"url": "http://127.0.0.1:9/"})
        assert answer.status_code == 201
        hooked(api, well)
        for _ in range(20):
            create(api)
        eventually(lambda: len(well.messages) == 20, 30, "all messages")


def test_hostile_settings_are_refused(api):
    for url, code in (
        ("ftp://hooks.example/", "url_scheme"),
        ("https://user:secret@hooks.example/", "url_credentials"),
        ("http://hop.example/in", "url_own_host"),
        ("https://", "url_scheme"),
        ("https://exa mple/", "url_forbidden_character"),
    ):
        found = problem(api.post(HOOKS, json={"url": url}), 422, "invalid")
        assert [(one["field"], one["code"]) for one in found["errors"]] == [("url", code)]
    bad = {
        "url": "https://hooks.example/",
        "kinds": ["link.exploded"],
        "domain": "none.example",
        "tag": "\x01",
    }
    found = problem(api.post(HOOKS, json=bad), 422, "invalid")
    assert [one["field"] for one in found["errors"]] == ["kinds", "domain", "tag"]
    problem(api.patch(f"{HOOKS}/wh_unknown", json={"name": "x"}), 404, "not_found")
    problem(api.patch(f"{HOOKS}/wh_unknown", json={}), 422, "invalid")
    for path in ("", "/deliveries"):
        problem(api.get(f"{HOOKS}/wh_unknown{path}"), 404, "not_found")
    for path in ("/rotate", "/replay"):
        problem(api.post(f"{HOOKS}/wh_unknown{path}", json={}), 404, "not_found")
    problem(api.post(f"{HOOKS}/wh_unknown/test"), 404, "not_found")
    problem(api.delete(f"{HOOKS}/wh_unknown"), 404, "not_found")


def test_deliveries_are_paged(api):
    with HookServer() as server:
        webhook = hooked(api, server)
        path = f"{HOOKS}/{webhook['webhook_id']}/deliveries"
        slugs = [create(api)["slug"] for _ in range(3)]
        eventually(lambda: len(deliveries(api, webhook)) == 3)

        first = api.get(path, params={"limit": 2}).json()
        second = api.get(path, params={"limit": 2, "cursor": first["next_cursor"]}).json()

    listed = [one["slug"] for one in (*first["deliveries"], *second["deliveries"])]
    assert (listed, second["next_cursor"]) == (slugs[::-1], None)
    problem(api.get(path, params={"cursor": "x"}), 422, "invalid")


def test_expiry_limit_and_first_visit_are_delivered(gateway, api):
    with HookServer() as server:
        hooked(api, server, kinds=["link.expired", "link.limit_reached", "link.first_visit"])
        soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
        expiring = create(api, expires_at=soon)["slug"]
        limited = create(api, max_visits=2)["slug"]
        for _ in range(3):
            httpx.get(f"{gateway.url}/{limited}")
        eventually(lambda: len(server.messages) >= 3, what="three messages")

    assert server.by_slug() == {
        expiring: [("link.expired", 1)],
        limited: [("link.limit_reached", 1), ("link.first_visit", 1)],
    }


def test_changes_survive_a_killed_gateway(gateway, api):
    """What was acknowledged is delivered, also when the gateway that delivers it is killed at once."""
    failing = True
    with HookServer(lambda _: 500 if failing else 204) as server:
        hooked(api, server)
        slugs = [create(api)["slug"] for _ in range(10)]
        gateway.kill()
        failing = False
        gateway.start()
        # What was under way is leased for 90 s.
        eventually(lambda: set(server.by_slug()) == set(slugs), 100, "all links")
        eventually(lambda: all(hooks_done(api)), 100, "all are delivered")


def hooks_done(api: httpx.Client) -> Iterator[bool]:
    for webhook in api.get(HOOKS).json()["webhooks"]:
        yield all(one["state"] == "delivered" for one in deliveries(api, webhook))


def test_command_line_has_webhooks(gateway, api, cli):
    with HookServer() as server:
        added = cli(
            gateway.settings, "webhooks", "add", server.url, "--name", "cli", "--kind", "link.created"
        )
        assert added.returncode == 0, added.stderr
        webhook_id, secret = added.stdout.split()
        assert webhook_id in cli(gateway.settings, "webhooks", "list").stdout
        assert cli(gateway.settings, "webhooks", "test", webhook_id).stdout == "answer 204\n"
        assert verified(server.messages[0], secret)["type"] == "webhook.test"
        slug = create(api)["slug"]
        eventually(lambda: len(server.messages) == 2, what="the event")
        eventually(
            lambda: (
                f"delivered  link.created  {slug}  answer 204"
                in cli(gateway.settings, "webhooks", "deliveries", webhook_id).stdout
            )
        )
        replayed = cli(gateway.settings, "webhooks", "replay", webhook_id, "--json")
        assert json.loads(replayed.stdout) == {"replayed": 0}
    assert cli(gateway.settings, "webhooks", "test", webhook_id).returncode == 1
    assert cli(gateway.settings, "webhooks", "remove", webhook_id).returncode == 0
    for command in ("remove", "deliveries", "replay", "test"):
        unknown = cli(gateway.settings, "webhooks", command, webhook_id)
        assert (unknown.returncode, f"there is no webhook {webhook_id}" in unknown.stderr) == (1, True)
    refused = cli(gateway.settings, "webhooks", "add", "ftp://x.example/")
    assert (refused.returncode, "url" in refused.stderr) == (1, True)


def test_deliveries_are_counted(gateway, api):
    with HookServer() as server:
        hooked(api, server)
        create(api)
        eventually(lambda: server.messages, what="a message")

        def counted() -> float:
            [line] = [
                one
                for one in httpx.get(f"{gateway.url}/metrics").text.splitlines()
                if one.startswith('hopgate_webhook_attempts_total{outcome="delivered"}')
            ]
            return float(line.split()[-1])

        eventually(lambda: counted() > 0, what="the count")
