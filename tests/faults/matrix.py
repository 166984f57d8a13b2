"""The matrix: what breaks, what is expected, and the bounds. Data only; `play` runs a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from tests.faults import crowd_stories, faults, more_stories, postgres_faults, stories, topology_stories
from tests.faults.drill import Fault, Outcomes, Timing, run
from tests.faults.observer import settle
from tests.faults.stage import Stage, proxies_undisturbed
from tests.servers.proxy import Network

Story = Callable[[Stage], Mapping[str, float]]
FULL_LOAD = {"visits": 200.0, "creates": 20.0, "edits": 5.0, "warm": 200}


@dataclass(frozen=True)
class Bound:
    """A figure (see `figures.py`) that must not exceed `most`, and not stay below `least`."""

    figure: str
    most: float = float("inf")
    least: float = float("-inf")

    def holds(self, value: float) -> bool:
        return self.least <= value <= self.most

    def __str__(self) -> str:
        sign, limit = ("≤", self.most) if self.least == float("-inf") else ("≥", self.least)
        return f"{self.figure} {sign} {limit:g}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """
    One row. The ledger must hold after each; `bounds` are what else was promised.

    Args:
        fault: happens under a load; or `story`: told step by step.
        quick: part of `make test`: its ledger and its statuses, not its times.
        settings: further settings of Hopgate.
        worker: a bug of `sabotaged.py` that the worker has.
        alone: leaves so much behind that the rows after it would take longer on the same stage.
        unplayable: says why it cannot be played on this machine; nothing if it can.
    """

    id: str
    what: str
    expected: str
    fault: Fault | None = None
    story: Story | None = None
    bounds: tuple[Bound, ...] = ()
    quick: bool = False
    timing: Timing = field(default_factory=Timing)
    load: Mapping[str, object] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    worker: str | None = None
    alone: bool = False
    unplayable: Callable[[], str] = str

    @property
    def needs_own_stage(self) -> bool:
        return self.alone or bool(self.settings) or self.worker is not None


def play(row: Row, stage: Stage, timing: Timing | None = None, **load: object) -> Outcomes:
    """Run *row* on *stage*; with a *timing* and a *load* other than its own where given."""
    with proxies_undisturbed():
        if row.fault is not None:
            return run(stage, row.fault, timing or row.timing, **{**load, **row.load})
        assert row.story is not None
        figures = row.story(stage)
        hurry = timing is not None and timing.hurry
        found, drain_s = settle(stage, hurry=hurry)
        return Outcomes(found, {"drain_s": drain_s, **figures})


def most(**limits: float) -> tuple[Bound, ...]:
    """Return bounds that figures must not exceed."""
    return tuple(Bound(figure, most=limit) for figure, limit in limits.items())


def least(**limits: float) -> tuple[Bound, ...]:
    """Return bounds that figures must reach."""
    return tuple(Bound(figure, least=limit) for figure, limit in limits.items())


def _f(row_id: str, what: str, fault: Fault, expected: str, *bounds: Bound, **more) -> Row:
    return Row(id=row_id, what=what, fault=fault, expected=expected, bounds=bounds, **more)


def _s(row_id: str, what: str, story: Story, expected: str, *bounds: Bound, **more) -> Row:
    return Row(id=row_id, what=what, story=story, expected=expected, bounds=bounds, **more)


_NO_ERRORS = most(visit_errors=0, write_errors=0)
# Whatever is away, a link that was shown before is shown, and about as fast.
_WARM = most(warm_errors=0, warm_p99_ratio=2.0)
_REDIS_IS_BACK = most(cache_back_s=3.0)
_POSTGRES_IS_BACK = most(first_create_s=3.0)
_RABBIT_IS_BACK = most(confirmed_s=5.0)
# What nobody notices may not have happened: creates, which are most writes, must fail.
_NO_WRITES = least(write_errors=0.3)
# A first cache keeps what it has for two seconds; a change it heard of is seen at once.
_FRESH = most(stale_s=2.5)
_WELL_AFTER = most(visit_errors_late=0, write_errors_late=0)
_unconfirmed = partial(faults.proven, evidence=faults.changes_wait)
_unwritable = partial(faults.proven, evidence=faults.redis_refuses_writes)
_SLOW = Network(latency_s=0.2, jitter_s=0.1, slice_bytes=64, bytes_per_s=50_000)
_REDIS_IS_AWAY = "visits are served by PostgreSQL, writes succeed, the cache refills"
_POSTGRES_IS_AWAY = "what is cached redirects; the rest is 503 with Retry-After, never a false 404"
_RABBIT_IS_AWAY = "writes succeed, the outbox grows and drains, the cache is written meanwhile"

ROWS: tuple[Row, ...] = (
    _f("F0", "nothing", faults.nothing, "all is well", *_NO_ERRORS, *most(stale_s=1.0)),
    _f(
        "F1",
        "Redis SIGKILL, back empty",
        faults.killed("redis"),
        _REDIS_IS_AWAY,
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
        faults.paused("redis"),
        f"{_REDIS_IS_AWAY}; no late write wins",
        *_NO_ERRORS,
        *most(visit_p99_s=0.3, cache_left_s=1.0),
        *_WARM,
        *_REDIS_IS_BACK,
        *_FRESH,
        quick=True,
    ),
    _f("F3", "Redis silent, both ways", faults.silent("redis"), _REDIS_IS_AWAY, *_NO_ERRORS,
       *most(visit_max_s=0.5), *_WARM, *_REDIS_IS_BACK, *_FRESH),
    _f("F4", "Redis takes requests, answers are lost", faults.network("redis", Network(silent_down=True)),
       _REDIS_IS_AWAY, *_NO_ERRORS, *most(visit_max_s=0.5), *_FRESH, *least(cache_given_up=1)),
    _f("F5", "Redis: one chunk in ten 80 ms late",
       faults.network("redis", Network(latency_s=0.08, share=0.1)), "no errors", *_NO_ERRORS,
       *most(visit_p99_s=0.2, cache_given_up=2)),
    _f("F6", "Redis connections reset every 0.3 s",
       faults.again_and_again(faults.reset("redis"), 0.3), "no errors", *_NO_ERRORS),
    _f("F7", "Redis out of memory (noeviction)", _unwritable(faults.redis_full),
       "reads work, failed writes harm nobody",
       *_NO_ERRORS, *_FRESH),
    _f("F8a", "Redis MISCONF", _unwritable(faults.redis_cannot_save), "as F7", *_NO_ERRORS, *_FRESH),
    _f("F8b", "Redis READONLY", _unwritable(faults.redis_read_only), "as F7", *_NO_ERRORS, *_FRESH),
    _f("F8c", "Redis LOADING", faults.redis_loading, "as F7", *_NO_ERRORS),
    _f("F10", "FLUSHALL under a load of misses", faults.redis_flushed,
       "may be shed; recovers while the load stays", *_WELL_AFTER,
       load={"visits": 400.0, "warm": 1000}, timing=Timing(during_s=5.0)),
    _f("F11", "PostgreSQL SIGKILL, recovers", faults.killed("postgres"), _POSTGRES_IS_AWAY,
       *most(without_retry_after=0), *_WARM, *_POSTGRES_IS_BACK, *_WELL_AFTER, *_NO_WRITES, quick=True),
    _f("F12", "PostgreSQL stop -m immediate, 60 s", postgres_faults.postgres_restarted, _POSTGRES_IS_AWAY,
       *most(without_retry_after=0), *_POSTGRES_IS_BACK, *_WELL_AFTER, *_NO_WRITES,
       timing=Timing(during_s=60.0)),
    _f("F12b", "PostgreSQL stop -m immediate, 10 min", postgres_faults.postgres_restarted, _POSTGRES_IS_AWAY,
       *most(without_retry_after=0), *_POSTGRES_IS_BACK, *_WELL_AFTER, *_NO_WRITES,
       timing=Timing(during_s=600.0), alone=True),
    _f("F13", "PostgreSQL SIGSTOP", faults.paused("postgres"), _POSTGRES_IS_AWAY,
       *most(visit_p99_s=0.02, without_retry_after=0), *_WARM, *_POSTGRES_IS_BACK, *_WELL_AFTER, *_NO_WRITES),
    _f("F13b", "PostgreSQL silent, both ways", faults.silent("postgres"), _POSTGRES_IS_AWAY,
       *most(without_retry_after=0), *_WARM, *_POSTGRES_IS_BACK, *_WELL_AFTER, *_NO_WRITES),
    _f("F14", "PostgreSQL commits, its answer is lost",
       faults.network("postgres", Network(lost_commits=True)),
       "outcomes are unknown; asking again with the key finds the same link",
       *least(unknown=1, found_again=1), *_WELL_AFTER, quick=True),
    _f("F15", "PostgreSQL ends every session, each second",
       faults.again_and_again(postgres_faults.postgres_terminates, 1.0), "visits do not notice",
       *most(visit_errors=0), *_WELL_AFTER),
    _f("F16", "PostgreSQL has no connection left", postgres_faults.postgres_crowded, "fails fast",
       *most(visit_errors=0.01, write_max_s=0.1, without_retry_after=0), *_WELL_AFTER, *_NO_WRITES),
    _f("F17", "the table of links is locked", postgres_faults.links_locked, _POSTGRES_IS_AWAY,
       *most(write_max_s=2.0, without_retry_after=0), *_WELL_AFTER, *_NO_WRITES),
    _f("F18", "PostgreSQL is read-only", postgres_faults.postgres_read_only, "visits work, writes get 503",
       *most(visit_errors=0, without_retry_after=0), *_WELL_AFTER, *_NO_WRITES),
    _f("F18b", "PostgreSQL's disk is full", postgres_faults.postgres_disk_full,
       "visits work, writes get 503, what is stored is relayed",
       *most(visit_errors=0, without_retry_after=0), *least(write_errors=0.1), *_POSTGRES_IS_BACK,
       *_WELL_AFTER),
    _s("F20", "100 creators want one slug", more_stories.slug_race,
       "one 201; the others 409, or 503 when that is too many at once",
       *most(created=1), *least(created=1, refused=99), quick=True),
    _s("F21", "a lower outbox id commits late", stories.late_commit, "its event arrives all the same",
       quick=True),
    _f("F22", "RabbitMQ SIGKILL", _unconfirmed(faults.killed("rabbitmq")), _RABBIT_IS_AWAY, *_NO_ERRORS,
       *most(drain_s=30.0), *_WARM, *_RABBIT_IS_BACK),
    _f("F22b", "RabbitMQ refuses connections", _unconfirmed(faults.refused("rabbitmq")),
       _RABBIT_IS_AWAY, *_NO_ERRORS, *most(drain_s=30.0), *_RABBIT_IS_BACK, quick=True),
    _f("F23", "RabbitMQ silent, both ways", _unconfirmed(faults.silent("rabbitmq")),
       _RABBIT_IS_AWAY, *_NO_ERRORS, *most(create_p99_s=0.3, drain_s=30.0), *_WARM, *_RABBIT_IS_BACK),
    _f("F23b", "RabbitMQ SIGSTOP", _unconfirmed(faults.paused("rabbitmq")), _RABBIT_IS_AWAY, *_NO_ERRORS,
       *most(create_p99_s=0.3, drain_s=30.0), *_WARM, *_RABBIT_IS_BACK),
    _s("F23c", "RabbitMQ confirms too late", stories.unconfirmed_publish,
       "a channel that timed out is given up; the outbox drains", quick=True),
    _s("F23d", "5,000 changes wait for RabbitMQ", stories.outbox_drained, "relayed at a good pace",
       *least(drained_a_second=1000), *_RABBIT_IS_BACK),
    _f("F24", "RabbitMQ memory alarm", _unconfirmed(faults.rabbit_alarmed), _RABBIT_IS_AWAY, *_NO_ERRORS,
       *most(write_max_s=5.0, drain_s=30.0), *_RABBIT_IS_BACK),
    _f("F24b", "RabbitMQ disk alarm", _unconfirmed(faults.rabbit_disk_alarmed), _RABBIT_IS_AWAY, *_NO_ERRORS,
       *most(write_max_s=5.0, drain_s=30.0), *_RABBIT_IS_BACK),
    _f("F25a", "RabbitMQ hangs up on everybody", faults.rabbit_hangs_up, _RABBIT_IS_AWAY, *_NO_ERRORS,
       *most(drain_s=30.0), timing=Timing(during_s=6.0)),
    _f("F25b", "the work queue is deleted", faults.queue_deleted, "declared anew, consumed again",
       *_NO_ERRORS, *most(drain_s=30.0), timing=Timing(during_s=6.0)),
    _f("F26", "RabbitMQ far away: slow, sliced, narrow", faults.network("rabbitmq", _SLOW), _RABBIT_IS_AWAY,
       *_NO_ERRORS, *most(drain_s=30.0)),
    _f("F27", "the worker is killed every second",
       faults.again_and_again(faults.worker_killed_and_back, 1.0), "redelivered; repeating harms nothing",
       *_NO_ERRORS),
    _s("F27b", "the worker is killed with events it could not apply", stories.worker_killed_at_work,
       "redelivered", quick=True),
    _f("F28", "the worker stands still", faults.worker_paused, "no late write wins", *_NO_ERRORS,
       *_FRESH),
    _s("F29", "poison among the events", more_stories.poisoned_queue,
       "parked; neighbours are applied within 2 s", *most(neighbours_s=2.0), quick=True),
    _s("F30", "an event that kills the worker each time", more_stories.crash_loop,
       "parked by the delivery limit; neighbours arrive", *most(neighbours_lost=0), worker="crash_on_one"),
    _s("F31", "events shuffled, ten times each", more_stories.shuffled_events, "the store wins", quick=True),
    _s("F32", "one gateway's writes to Redis arrive late", stories.late_writer, "newer ones win", quick=True),
    _s("F33", "late events of a removed link; its slug asked for again", more_stories.no_resurrection,
       "410 for ever; 409 for who wants it", *most(recreated=0), quick=True),
    _f("F34", "a gateway's process is killed every 3 s",
       faults.again_and_again(faults.gateway_process_killed, 3.0),
       "started again; what was acknowledged is safe",
       *most(visit_errors=0.05), *_WELL_AFTER),
    _f("F35", "rolling restart, a connection held open", faults.gateways_restarted,
       "no visit fails; each ends within 20 s", *most(visit_errors=0, restart_s=20.0),
       load={"failover": True}, timing=Timing(during_s=1.0)),
    _f("F36", "Redis and RabbitMQ refuse",
       _unconfirmed(faults.together(faults.refused("redis"), faults.refused("rabbitmq"))),
       "PostgreSQL serves alone; nothing is lost", *_NO_ERRORS),
    _s("F36b", "edits and removals while Redis (with its data) and RabbitMQ are away",
       stories.edits_without_caches, "the outbox remembers them", quick=True),
    _f("F37", "Redis, RabbitMQ and PostgreSQL refuse",
       faults.together(*map(faults.refused, ("redis", "rabbitmq", "postgres"))),
       "first caches, then 503 with Retry-After; no hang",
       *most(without_retry_after=0, visit_max_s=0.5, write_max_s=2.0), *_WELL_AFTER, *_NO_WRITES, quick=True),
    _f("F37b", "Redis, RabbitMQ and PostgreSQL silent",
       faults.together(*map(faults.silent, ("redis", "rabbitmq", "postgres"))),
       "as F37", *most(without_retry_after=0, visit_max_s=0.5, write_max_s=2.0), *_WELL_AFTER, *_NO_WRITES),
    _f("F38", "Redis and PostgreSQL are away",
       faults.together(faults.killed("redis"), faults.killed("postgres")),
       "503 with Retry-After", *most(without_retry_after=0), *_WELL_AFTER, *_NO_WRITES),
    _s("F39", "a flood of look-ups beside the ordinary load", crowd_stories.look_ups_flooded,
       "shed by 503 with Retry-After; healthy all the while; well again within 5 s",
       *least(shed=1), *most(without_retry_after=0, unhealthy=0, recovery_s=5.0)),
    _f("F40", "slow clients: idle, slow headers, slow bodies, none that reads", faults.slow_clients,
       "others do not notice", *_NO_ERRORS, *most(visit_p99_s=0.05)),
    _s("F42", "5,000 concurrent misses of one link on each gateway, the first caller gone",
       more_stories.hot_miss, "one look-up a process, and the same redirect for all",
       *most(lookups_a_process=1, not_redirected=0, different_answers=1)),
    _s("F43", "2,000 guesses of slugs from one address", more_stories.slug_scan,
       "PostgreSQL hardly hears of it; others are served", *most(lookups=120, others_refused=0),
       settings={"HOPGATE_LIMIT_NOT_FOUND": "60/min burst 60"}),
    _s("F43b", "guesses of slugs from 500 addresses, 2,000 a second", crowd_stories.scanned_by_many,
       "each is within its limit: PostgreSQL hears of them in few questions, others are served",
       *most(questions_a_guess=0.5, visit_errors=0, unhealthy=0, redis_mb=1.0, grown_mb=32),
       settings={"HOPGATE_LIMIT_NOT_FOUND": "60/min burst 60"}),
    _s("F44", "the shared limit is lost: Redis forgets, then dies", crowd_stories.shared_limit_lost,
       "one client at twice its rate gets its rate, give or take a fifth",
       *most(flushed_share=1.2, killed_share=1.2), *least(flushed_share=0.8, killed_share=0.8),
       settings=crowd_stories.LIMITED),
    _s("F45", "a million clients", crowd_stories.many_clients,
       "memory is bounded; others are limited as before",
       *least(clients=1_000_000, greedy_share=0.8), *most(greedy_share=1.2, modest_refused=0, grown_mb=32),
       settings=crowd_stories.BEHIND_PROXIES),
    _s("F46", "a primary of a Redis Cluster is killed, its replica takes over",
       topology_stories.cluster_failover, "its shard alone degrades", *_NO_ERRORS,
       *most(violations=0, cached_wrong=0, recovery_s=20.0, fds_grown=16,
             other_shards_errors=0, other_shards_p99_s=0.1, other_shards_stale_s=3.0)),
    _s("F46b", "slots of a Redis Cluster move (MOVED, ASK)", topology_stories.cluster_resharded,
       "followed", *_NO_ERRORS, *most(violations=0, cached_wrong=0, recovery_s=20.0, fds_grown=16)),
    _s("F47", "a PostgreSQL replica lags by 30 s, dies; Redis is full and no worker runs",
       topology_stories.lagging_replica, "own changes are seen at once; never a false 404",
       *most(not_found=0, failed=0, own_edits_missed=0), *least(answered_by_replica=1)),
    *(
        _s(f"F48{letter}", f"the name of {service} is unknown, then leads nowhere",
           topology_stories.unresolvable(service), expected, *bounds,
           *most(violations=0, crashes=0, recovery_s=20.0), unplayable=topology_stories.no_names)
        for letter, service, expected, bounds in (
            ("a", "redis", _REDIS_IS_AWAY, _NO_ERRORS),
            ("b", "postgres", _POSTGRES_IS_AWAY, (*most(without_retry_after=0), *_NO_WRITES)),
            ("c", "rabbitmq", _RABBIT_IS_AWAY, _NO_ERRORS),
        )
    ),
    _s("F48d", "the certificate of Redis expires", topology_stories.expired_certificate, _REDIS_IS_AWAY,
       *_NO_ERRORS, *most(violations=0, crashes=0, recovery_s=20.0, cached_wrong=0)),
)  # fmt: skip

# Rows of the matrix that this machine cannot play, and why.
NOT_COVERED: Mapping[str, str] = {
    "F47 switch of the primary": "needs a second truth; tests/contract/test_link_replica.py promotes one",
}
