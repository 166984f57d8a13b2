"""A worker that is killed while it works, and messages that it cannot apply."""

from __future__ import annotations

import random
import time

from app.wire import CACHE_QUEUE
from tests.faults.breaks.network import refused
from tests.faults.breaks.rabbitmq import POISON, publish
from tests.faults.harness.drill import Figures
from tests.faults.harness.journaled_client import JournaledClient
from tests.faults.harness.observer import cached, queue_depths
from tests.faults.harness.stage import Stage
from tests.servers.hopgate import eventually


def killed_with_unapplied_events(stage: Stage) -> Figures:
    """The worker is killed with events that it cannot apply: Redis, with its data, refuses connections."""
    with JournaledClient(stage) as client:
        slugs = client.create_cached(8)
        with refused("redis")(stage):
            for slug in slugs:
                assert client.edit(slug) == 200
            time.sleep(1.0)  # the worker has received them
            stage.worker.kill()
        stage.worker.start()
    return {}


def poisoned_queue(stage: Stage) -> Figures:
    """Unreadable messages precede and follow good ones in the queue."""
    with JournaledClient(stage) as client:
        publish(stage, POISON)
        stage.poison += len(POISON)
        began = time.monotonic()
        slugs = client.create_many(20)
        publish(stage, POISON)
        stage.poison += len(POISON)
        eventually(lambda: not queue_depths(stage)[CACHE_QUEUE], 20, "the neighbours are applied")
        took_s = time.monotonic() - began
        missing = set(slugs) - set(cached(stage))
    return {"neighbours_s": took_s, "neighbours_missing": len(missing)}


def crash_loop(stage: Stage) -> Figures:
    """One event kills the worker process at each delivery; a supervisor restarts it."""
    stage.servers.rabbitmq.ctl(
        *("set_policy", "-p", stage.vhost, "limit", "^hopgate\\.cache$", '{"delivery-limit":10}')
    )
    with JournaledClient(stage) as client:
        # Gateways write the cache too; an empty one shows what the worker writes.
        stage.servers.redis.flush()
        slugs = client.create_many(20)
        client.create(f"crash-{random.getrandbits(40):x}")
        end = time.monotonic() + 90
        starts = 0
        while time.monotonic() < end:
            if not stage.worker.is_alive:
                stage.worker.kill()
                stage.worker.start()
                starts += 1
            depths = queue_depths(stage)
            if depths["hopgate.cache.dead"] and not depths[CACHE_QUEUE]:
                break
            time.sleep(0.5)
        time.sleep(3)
        dead = queue_depths(stage)["hopgate.cache.dead"]
        stage.poison += 1
    return {"starts": starts, "dead": dead, "neighbours_lost": max(0, dead - 1), "links": len(slugs)}
