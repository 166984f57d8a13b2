"""Writes and events that arrive in the wrong order."""

from __future__ import annotations

import random
import time
from collections import Counter

import psycopg

from app.domain.events import LinkChanged
from app.domain.link import Slug
from app.wire import CACHE_QUEUE, encode_event
from tests.faults.breaks.rabbitmq import publish
from tests.faults.harness.drill import Figures
from tests.faults.harness.journal import Kind, Reply
from tests.faults.harness.journaled_client import JournaledClient
from tests.faults.harness.observer import queue_depths, wait_until_quiet
from tests.faults.harness.stage import Stage
from tests.servers.hopgate import eventually
from tests.servers.proxy import GOOD, Network


def late_cache_write(stage: Stage) -> Figures:
    """A slow network delays the cache write of one gateway until after a newer one."""
    with JournaledClient(stage) as client:
        for slug in client.create_cached(4):
            assert client.edit(slug, gateway=0) == 200  # opens a connection to Redis
            time.sleep(0.3)
            # The gateway gives up at its deadline; its write is still in flight.
            stage.network("redis", Network(latency_s=1.0), party="gateway-0")
            assert client.edit(slug, gateway=0) == 200
            assert client.edit(slug, gateway=1) == 200
            time.sleep(1.5)
            stage.network("redis", GOOD, party="gateway-0")
    return {}


def late_commit(stage: Stage) -> Figures:
    """A transaction with a low outbox id commits after higher ids were relayed."""
    with JournaledClient(stage) as client:
        slug, *others = client.create_cached(4)
        intent = client.intent(Kind.EDIT, slug)
        with psycopg.connect(stage.settings["HOPGATE_DATABASE_URL"]) as held:
            held.execute(
                "UPDATE links SET long_url = %s, version = version + 1 WHERE slug = %s", (intent.url, slug)
            )
            held.execute("INSERT INTO outbox (slug, version, next_attempt_at) VALUES (%s, 2, now())", (slug,))
            # Without RabbitMQ, gateways publish nothing: the relay delivers their changes.
            for party in ("gateway-0", "gateway-1"):
                stage.network("rabbitmq", Network(refuse=True), party=party)
                stage.proxies[party]["rabbitmq"].reset()
            for other in others:
                assert client.edit(other) == 200
            wait_until_quiet(stage, 20)
            held.commit()
        client.record(intent, Reply(id=intent.id, status=200, at=time.monotonic(), slug=slug, version=2))
        stage.network("rabbitmq", GOOD)
    return {}


def slug_race(stage: Stage) -> Figures:
    """A hundred concurrent creates of one slug, on both gateways."""
    with JournaledClient(stage) as client:
        slug = f"race-{random.getrandbits(40):x}"
        done = client.send([client.intent(Kind.CREATE, slug, gateway=i % 2) for i in range(100)])
    statuses = Counter(op.status for op in done)
    # A 503 refuses the create as well, only for now.
    return {"created": statuses[201], "taken": statuses[409], "refused": statuses[409] + statuses[503]}


def shuffled_events(stage: Stage) -> Figures:
    """Events of some links arrive ten times, in random order, with old and new versions."""
    with JournaledClient(stage) as client:
        slugs = client.create_many(10)
        for slug in slugs[:6]:
            assert client.edit(slug) == 200
        for slug in slugs[:2]:
            assert client.remove(slug) == 204
        events = [LinkChanged(Slug(slug), version) for slug in slugs for version in (1, 2, 3)] * 10
        random.Random(0).shuffle(events)
        publish(stage, [encode_event(event) for event in events])
    return {"events": len(events)}


def events_after_removal(stage: Stage) -> Figures:
    """Late events of a removed link, and creates that request its slug."""
    with JournaledClient(stage) as client:
        slug = client.create(f"gone-{random.getrandbits(40):x}")
        assert client.remove(slug) == 204
        publish(stage, [encode_event(LinkChanged(Slug(slug), version)) for version in (2, 1, 1)])
        again = client.send([client.intent(Kind.CREATE, slug, gateway=i % 2) for i in range(10)])
        publish(stage, [encode_event(LinkChanged(Slug(slug), 1))])
        eventually(lambda: not queue_depths(stage)[CACHE_QUEUE], 20, "the events are applied")
    return {"recreated": sum(1 for op in again if op.status == 201)}
