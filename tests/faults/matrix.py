"""The fault matrix: faults, expected behaviour and bounds. Data only; `harness/row.py` runs a row."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from tests.faults.breaks import combined, network, postgres, process, rabbitmq, redis
from tests.faults.harness.drill import Fault, Story, Timing
from tests.faults.harness.row import Bound, Row, least, most
from tests.faults.stories import (
    addresses,
    clocks,
    cluster,
    floods,
    outbox,
    races,
    rate_limits,
    replica,
    sentinel,
    standby,
    worker,
)
from tests.servers import stepped_clock
from tests.servers.proxy import Network


def _f(row_id: str, what: str, fault: Fault, expected: str, *bounds: Bound, **more) -> Row:
    return Row(id=row_id, what=what, fault=fault, expected=expected, bounds=bounds, **more)


def _s(row_id: str, what: str, story: Story, expected: str, *bounds: Bound, **more) -> Row:
    return Row(id=row_id, what=what, story=story, expected=expected, bounds=bounds, **more)


_NO_ERRORS = most(visit_errors=0, write_errors=0)
# During any outage, links that were served before are still served, about as fast.
_WARM = most(warm_errors=0, warm_p99_ratio=2.0)
_REDIS_IS_BACK = most(cache_back_s=3.0)
_POSTGRES_IS_BACK = most(first_create_s=3.0)
_RABBIT_IS_BACK = most(confirmed_s=5.0)
# Evidence of the fault: creates, which are most writes, must fail.
_NO_WRITES = least(write_errors=0.3)
# An entry of the L1 cache expires after two seconds; an event replaces it at once.
_FRESH = most(stale_s=2.5)
_WELL_AFTER = most(visit_errors_late=0, write_errors_late=0)
_unconfirmed = partial(combined.verified, evidence=rabbitmq.outbox_grows)
_unwritable = partial(combined.verified, evidence=redis.refuses_writes)
_SLOW = Network(latency_s=0.2, jitter_s=0.1, slice_bytes=64, bytes_per_s=50_000)
_REDIS_OUTAGE = "visits are served by PostgreSQL, writes succeed, the cache refills"
_POSTGRES_OUTAGE = "cached links redirect; the rest is 503 with Retry-After, never a false 404"
_RABBIT_OUTAGE = "writes succeed and reach the cache; the outbox grows, then drains"

ROWS: tuple[Row, ...] = (
    _f("F0", "nothing", combined.nothing, "no errors", *_NO_ERRORS, *most(stale_s=1.0)),
    _f(
        "F1",
        "Redis SIGKILL, back empty",
        process.killed("redis"),
        _REDIS_OUTAGE,
        *most(visit_errors_1s=0.01, visit_errors_after_1s=0, write_errors=0, visit_p99_s=0.3),
        *_WARM,
        *_REDIS_IS_BACK,
        *least(late_hit_ratio=0.7),
        *_WELL_AFTER,
        timing=Timing(after_s=25.0),
        quick=True,
    ),
    _f(
        "F2",
        "Redis SIGSTOP, SIGCONT",
        process.paused("redis"),
        f"{_REDIS_OUTAGE}; no late write wins",
        *_NO_ERRORS,
        *most(visit_p99_s=0.3, cache_left_s=1.0),
        *_WARM,
        *_REDIS_IS_BACK,
        *_FRESH,
        quick=True,
    ),
    _f("F3", "Redis silent, both ways", network.silent("redis"), _REDIS_OUTAGE, *_NO_ERRORS,
       *most(visit_max_s=0.5), *_WARM, *_REDIS_IS_BACK, *_FRESH),
    _f("F4", "Redis receives requests, its replies are lost",
       network.degraded("redis", Network(silent_down=True)), _REDIS_OUTAGE, *_NO_ERRORS,
       *most(visit_max_s=0.5), *_FRESH, *least(cache_given_up=1)),
    _f("F5", "Redis: one chunk in ten 80 ms late",
       network.degraded("redis", Network(latency_s=0.08, share=0.1)), "no errors", *_NO_ERRORS,
       *most(visit_p99_s=0.2, cache_given_up=2)),
    _f("F6", "Redis connections reset every 0.3 s",
       combined.repeated(network.reset("redis"), 0.3), "no errors", *_NO_ERRORS),
    _f("F7", "Redis out of memory (noeviction)", _unwritable(redis.full),
       "reads work, failed writes cause no error",
       *_NO_ERRORS, *_FRESH),
    _f("F8a", "Redis MISCONF", _unwritable(redis.misconf), "as F7", *_NO_ERRORS, *_FRESH),
    _f("F8b", "Redis READONLY", _unwritable(redis.read_only), "as F7", *_NO_ERRORS, *_FRESH),
    _f("F8c", "Redis LOADING", redis.loading, "as F7", *_NO_ERRORS),
    _f("F10", "FLUSHALL under a load of misses", redis.flushed,
       "some may be shed; recovers under the same load", *_WELL_AFTER,
       load={"visits": 400.0, "warm": 1000}, timing=Timing(during_s=5.0)),
    _f("F11", "PostgreSQL SIGKILL, recovers", process.killed("postgres"), _POSTGRES_OUTAGE,
       *most(without_retry_after=0), *_WARM, *_POSTGRES_IS_BACK, *_WELL_AFTER, *_NO_WRITES, quick=True),
    _f("F12", "PostgreSQL stop -m immediate, 60 s", postgres.restarted, _POSTGRES_OUTAGE,
       *most(without_retry_after=0), *_POSTGRES_IS_BACK, *_WELL_AFTER, *_NO_WRITES,
       timing=Timing(during_s=60.0)),
    _f("F12b", "PostgreSQL stop -m immediate, 10 min", postgres.restarted, _POSTGRES_OUTAGE,
       *most(without_retry_after=0), *_POSTGRES_IS_BACK, *_WELL_AFTER, *_NO_WRITES,
       timing=Timing(during_s=600.0), alone=True),
    _f("F13", "PostgreSQL SIGSTOP", process.paused("postgres"), _POSTGRES_OUTAGE,
       *most(visit_p99_s=0.02, without_retry_after=0), *_WARM, *_POSTGRES_IS_BACK, *_WELL_AFTER, *_NO_WRITES),
    _f("F13b", "PostgreSQL silent, both ways", network.silent("postgres"), _POSTGRES_OUTAGE,
       *most(without_retry_after=0), *_WARM, *_POSTGRES_IS_BACK, *_WELL_AFTER, *_NO_WRITES),
    _f("F14", "PostgreSQL commits, its reply is lost",
       network.degraded("postgres", Network(lost_commits=True)),
       "outcomes are unknown; a retry with the key finds the same link",
       *least(unknown=1, found_again=1), *_WELL_AFTER, quick=True),
    _f("F15", "PostgreSQL terminates every session, each second",
       combined.repeated(postgres.sessions_terminated, 1.0), "visits are not affected",
       *most(visit_errors=0), *_WELL_AFTER),
    _f("F16", "PostgreSQL has no connection left", postgres.connections_exhausted, "fails fast",
       *most(visit_errors=0.01, write_max_s=0.1, without_retry_after=0), *_WELL_AFTER, *_NO_WRITES),
    _f("F17", "the table of links is locked", postgres.table_locked, _POSTGRES_OUTAGE,
       *most(write_max_s=2.0, without_retry_after=0), *_WELL_AFTER, *_NO_WRITES),
    _f("F18", "PostgreSQL is read-only", postgres.read_only, "visits work, writes get 503",
       *most(visit_errors=0, without_retry_after=0), *_WELL_AFTER, *_NO_WRITES),
    _f("F18b", "PostgreSQL's disk is full", postgres.disk_full,
       "visits work, writes get 503, stored changes are relayed",
       *most(visit_errors=0, without_retry_after=0), *least(write_errors=0.1), *_POSTGRES_IS_BACK,
       *_WELL_AFTER),
    _s("F19", "a synchronous standby of PostgreSQL is stopped for 30 s",
       standby.synchronous_standby_stalls,
       "writes get 503, every visit is served; no process exceeds its 8 connections",
       *most(sessions=24, visit_errors=0, without_retry_after=0, violations=0), *_POSTGRES_IS_BACK,
       *_WELL_AFTER, *_NO_WRITES),
    _s("F19b", "PostgreSQL fails over to a standby that lacks 30 changes",
       standby.lagging_standby_takes_over,
       "gateways and Redis show what the new primary has, within 5 s",
       *most(truth_s=5.0, violations=0, visit_errors_late=0), *least(late_visits=100)),
    _s("F20", "100 concurrent creates of one slug", races.slug_race,
       "one 201; the others 409, or 503 if shed",
       *most(created=1), *least(created=1, refused=99), quick=True),
    _s("F21", "a lower outbox id commits late", races.late_commit, "its event is delivered",
       quick=True),
    _f("F22", "RabbitMQ SIGKILL", _unconfirmed(process.killed("rabbitmq")), _RABBIT_OUTAGE, *_NO_ERRORS,
       *most(drain_s=30.0), *_WARM, *_RABBIT_IS_BACK),
    _f("F22b", "RabbitMQ refuses connections", _unconfirmed(network.refused("rabbitmq")),
       _RABBIT_OUTAGE, *_NO_ERRORS, *most(drain_s=30.0), *_RABBIT_IS_BACK, quick=True),
    _f("F23", "RabbitMQ silent, both ways", _unconfirmed(network.silent("rabbitmq")),
       _RABBIT_OUTAGE, *_NO_ERRORS, *most(create_p99_s=0.3, drain_s=30.0), *_WARM, *_RABBIT_IS_BACK),
    _f("F23b", "RabbitMQ SIGSTOP", _unconfirmed(process.paused("rabbitmq")), _RABBIT_OUTAGE, *_NO_ERRORS,
       *most(create_p99_s=0.3, drain_s=30.0), *_WARM, *_RABBIT_IS_BACK),
    _s("F23c", "RabbitMQ confirms too late", outbox.unconfirmed_publish,
       "a channel that timed out is replaced; the outbox drains", quick=True),
    _s("F23d", "5,000 changes wait for RabbitMQ", outbox.backlog_drained, "relayed at 1,000 a second or more",
       *least(drained_a_second=1000), *_RABBIT_IS_BACK),
    _f("F24", "RabbitMQ memory alarm", _unconfirmed(rabbitmq.memory_alarm), _RABBIT_OUTAGE, *_NO_ERRORS,
       *most(write_max_s=5.0, drain_s=30.0), *_RABBIT_IS_BACK),
    _f("F24b", "RabbitMQ disk alarm", _unconfirmed(rabbitmq.disk_alarm), _RABBIT_OUTAGE, *_NO_ERRORS,
       *most(write_max_s=5.0, drain_s=30.0), *_RABBIT_IS_BACK),
    _f("F25a", "RabbitMQ closes every connection", rabbitmq.connections_closed, _RABBIT_OUTAGE, *_NO_ERRORS,
       *most(drain_s=30.0), timing=Timing(during_s=6.0)),
    _f("F25b", "the work queue is deleted", rabbitmq.queue_deleted, "declared and consumed again",
       *_NO_ERRORS, *most(drain_s=30.0), timing=Timing(during_s=6.0)),
    _f("F26", "RabbitMQ over a slow network: latency, small segments, low bandwidth",
       network.degraded("rabbitmq", _SLOW), _RABBIT_OUTAGE, *_NO_ERRORS, *most(drain_s=30.0)),
    _f("F27", "the worker is killed every second",
       combined.repeated(process.worker_restarted, 1.0), "redelivered; applying events twice is harmless",
       *_NO_ERRORS),
    _s("F27b", "the worker is killed with unapplied events", worker.killed_with_unapplied_events,
       "redelivered", quick=True),
    _f("F28", "the worker is paused (SIGSTOP)", process.worker_paused, "no late write wins", *_NO_ERRORS,
       *_FRESH),
    _s("F29", "poison messages among the events", worker.poisoned_queue,
       "dead-lettered; other events are applied within 2 s", *most(neighbours_s=2.0), quick=True),
    _s("F30", "an event that kills the worker at each delivery", worker.crash_loop,
       "dead-lettered by the delivery limit; other events are applied", *most(neighbours_lost=0),
       worker="crash_on_one"),
    _s("F31", "events shuffled, ten times each", races.shuffled_events, "the cache equals the store",
       quick=True),
    _s("F32", "cache writes of one gateway arrive late", races.late_cache_write, "newer versions win",
       quick=True),
    _s("F33", "late events of a removed link; creates of its slug", races.events_after_removal,
       "410 for ever; 409 for a create", *most(recreated=0), quick=True),
    _f("F34", "a gateway process is killed every 3 s",
       combined.repeated(process.gateway_worker_killed, 3.0),
       "restarted; no acknowledged write is lost",
       *most(visit_errors=0.05), *_WELL_AFTER),
    _f("F35", "rolling restart, a connection held open", process.gateways_restarted,
       "no visit fails; each gateway stops within 20 s", *most(visit_errors=0, restart_s=20.0),
       load={"failover": True}, timing=Timing(during_s=1.0)),
    _f("F36", "Redis and RabbitMQ refuse",
       _unconfirmed(combined.together(network.refused("redis"), network.refused("rabbitmq"))),
       "PostgreSQL serves alone; no write is lost", *_NO_ERRORS),
    _s("F36b", "edits and removals while Redis (with its data) and RabbitMQ refuse",
       outbox.edits_during_outage, "the outbox delivers them", quick=True),
    _f("F37", "Redis, RabbitMQ and PostgreSQL refuse",
       combined.together(*map(network.refused, ("redis", "rabbitmq", "postgres"))),
       "L1 caches, then 503 with Retry-After; no hang",
       *most(without_retry_after=0, visit_max_s=0.5, write_max_s=2.0), *_WELL_AFTER, *_NO_WRITES, quick=True),
    _f("F37b", "Redis, RabbitMQ and PostgreSQL silent",
       combined.together(*map(network.silent, ("redis", "rabbitmq", "postgres"))),
       "as F37", *most(without_retry_after=0, visit_max_s=0.5, write_max_s=2.0), *_WELL_AFTER, *_NO_WRITES),
    _f("F38", "Redis and PostgreSQL SIGKILL",
       combined.together(process.killed("redis"), process.killed("postgres")),
       "503 with Retry-After", *most(without_retry_after=0), *_WELL_AFTER, *_NO_WRITES),
    _s("F39", "a flood of look-ups beside the ordinary load", floods.lookup_flood,
       "shed by 503 with Retry-After; healthy throughout; recovers within 5 s",
       *least(shed=1), *most(without_retry_after=0, unhealthy=0, recovery_s=5.0)),
    _f("F40", "slow clients: idle, endless headers, endless bodies, no reads", network.slow_clients,
       "other clients are not affected", *_NO_ERRORS, *most(visit_p99_s=0.05)),
    _s("F42", "5,000 concurrent misses of one link on each gateway, the first caller disconnects",
       floods.concurrent_misses, "one look-up per process, and the same redirect for all",
       *most(lookups_a_process=1, not_redirected=0, different_answers=1)),
    _s("F43", "2,000 guesses of slugs from one address", floods.slug_scan,
       "few look-ups in PostgreSQL; other clients are served", *most(lookups=120, others_refused=0),
       settings={"HOPGATE_LIMIT_NOT_FOUND": "60/min burst 60"}),
    _s("F43b", "guesses of slugs from 500 addresses, 2,000 a second", floods.distributed_scan,
       "each is within its limit: look-ups are batched, other clients are served",
       *most(questions_a_guess=0.5, visit_errors=0, unhealthy=0, redis_mb=1.0, grown_mb=32),
       settings={"HOPGATE_LIMIT_NOT_FOUND": "60/min burst 60"}),
    _s("F44", "the shared limit is lost: Redis is flushed, then killed", rate_limits.shared_limit_lost,
       "a client at twice its limit is admitted at its limit ± 20 %",
       *most(flushed_share=1.2, killed_share=1.2), *least(flushed_share=0.8, killed_share=0.8),
       settings=rate_limits.LIMITED),
    _s("F45", "a million clients", rate_limits.many_clients,
       "memory is bounded; limits hold",
       *least(clients=1_000_000, greedy_share=0.8), *most(greedy_share=1.2, modest_refused=0, grown_mb=32),
       settings=rate_limits.BEHIND_PROXIES),
    _s("F46", "a primary of a Redis Cluster is killed, its replica takes over",
       cluster.cluster_failover, "only its shard degrades", *_NO_ERRORS,
       *most(violations=0, cached_wrong=0, recovery_s=20.0, fds_grown=16,
             other_shards_errors=0, other_shards_p99_s=0.1, other_shards_stale_s=3.0)),
    _s("F46b", "slots of a Redis Cluster move (MOVED, ASK)", cluster.cluster_resharded,
       "followed", *_NO_ERRORS, *most(violations=0, cached_wrong=0, recovery_s=20.0, fds_grown=16)),
    _s("F46c", "the primary of Redis Sentinels is killed, its replica lacks the last writes",
       sentinel.primary_killed, "followed; what the replica lacked is written again", *_NO_ERRORS,
       *_FRESH, *most(violations=0, cached_wrong=0, recovery_s=20.0, fds_grown=16)),
    _s("F46d", "the primary of Redis Sentinels is silent (SIGSTOP), replaced, and goes on",
       sentinel.primary_silent, "followed; the old primary is left", *_NO_ERRORS, *_FRESH,
       *most(violations=0, cached_wrong=0, recovery_s=20.0, fds_grown=16)),
    _s("F47", "a PostgreSQL replica lags by 30 s, then dies; Redis is full, the worker is paused",
       replica.lagging_replica, "a gateway serves its own changes at once; never a false 404",
       *most(not_found=0, failed=0, own_edits_missed=0), *least(answered_by_replica=1)),
    *(
        _s(f"F48{letter}", f"the name of {service} does not resolve, then leads to a closed port",
           addresses.unresolvable(service), expected, *bounds,
           *most(violations=0, crashes=0, recovery_s=20.0), unplayable=addresses.mount_namespace_missing)
        for letter, service, expected, bounds in (
            ("a", "redis", _REDIS_OUTAGE, _NO_ERRORS),
            ("b", "postgres", _POSTGRES_OUTAGE, (*most(without_retry_after=0), *_NO_WRITES)),
            ("c", "rabbitmq", _RABBIT_OUTAGE, _NO_ERRORS),
        )
    ),
    _s("F48d", "the certificate of Redis expires", addresses.expired_certificate, _REDIS_OUTAGE,
       *_NO_ERRORS, *most(violations=0, crashes=0, recovery_s=20.0, cached_wrong=0)),
    _s("F49", "the wall clock of gateways and worker steps: an hour forward, an hour back, right again",
       clocks.stepped,
       "links begin and end by the clock; keys, limits, breakers and the outbox hold",
       *_NO_ERRORS, *_FRESH, *_WELL_AFTER,
       *most(violations=0, time_wrong=0, made_twice=0, admitted=600, recovery_s=20.0, drain_s=30.0),
       settings=clocks.LIMITED, unplayable=stepped_clock.compiler_missing),
)  # fmt: skip

# Rows that no machine can run yet, and why.
NOT_COVERED: Mapping[str, str] = {
    "F47 switch of the primary, with replicas": "see tests/contract/test_link_replica.py, and F19b without",
    "an embedded file that is replaced": "this load needs a server; see tests/integration/test_bad_days.py",
}
