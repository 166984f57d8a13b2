"""
Limits shared by several nodes, under every fault a network and a node can have.

A real Redis runs the real script; its clock, those of the nodes and the network are the test's. Names such
as L1 are the guarantees: L1 the limit is never exceeded, L2 every token is accounted for, L3 and L4 no node
holds a token that Redis does not count as leased, L6 no token is stuck for ever, L8 refusals write nothing.

One state machine, so one file: each rule can follow each other one, and all share one model.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis
from hopgate_limiter import Decision, Limiter, ManualClock, Rate, RedisSync
from hopgate_limiter._native import _CompletionQueue, _Request
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.budgets import examples
from tests.native.central_state import CentralState, Reply, _unpack, read_request
from tests.servers.redis import PrivateRedis

START_US = 1_900_000_000_000_000
TTL_US = 200_000
PREFIX = b"rl:"
LOOK = 2


@dataclass
class Setup:
    """The settings of all nodes."""

    rates: tuple[Rate, ...]
    algorithm: str
    mode: str
    outstanding: int
    on_error: str
    optimistic: int
    fresh: str

    def limiter(self, clock: ManualClock) -> Limiter:
        cold: dict[str, Any] = {}
        if self.optimistic:
            cold = {"cold": "optimistic", "optimistic": self.optimistic}
        sync = RedisSync(
            "redis://localhost/",
            prefix=PREFIX.decode(),
            mode=self.mode,  # type: ignore[arg-type]
            max_outstanding=self.outstanding,
            lease_ttl=TTL_US / 1e6,
            on_error=self.on_error,  # type: ignore[arg-type]
            fresh=self.fresh,  # type: ignore[arg-type]
            **cold,
        )
        return Limiter(*self.rates, algorithm=self.algorithm, precision=4, clock=clock, sync=sync)  # type: ignore[arg-type]

    @property
    def reserve(self) -> int:
        return self.outstanding if self.mode == "strict" else 0

    @property
    def capacity(self) -> int:
        return min(rate.burst for rate in self.rates) - self.reserve


@st.composite
def setups(draw: st.DrawFn) -> Setup:
    algorithm = draw(st.sampled_from(["gcra", "sliding_window"]))
    periods_us = draw(st.lists(st.sampled_from([1000, 7_001, 100_000, 1_000_000]), min_size=1, max_size=2))
    rates = []
    for i, period_us in enumerate(periods_us):
        limit = draw(st.integers(1, 12))
        burst = draw(st.integers(2, 12)) if algorithm == "gcra" else None
        rates.append(Rate(max(2, limit), f"{period_us}us", burst=burst, name=f"r{i}"))
    smallest = min(rate.burst for rate in rates)
    mode = draw(st.sampled_from(["strict", "strict", "leased", "every_hit"]))
    return Setup(
        rates=tuple(rates),
        algorithm=algorithm,
        mode=mode,
        outstanding=draw(st.integers(0, smallest - 1)),
        on_error=draw(st.sampled_from(["deny", "share"])),
        optimistic=0 if mode == "every_hit" else draw(st.sampled_from([0, 0, 1, 2, 30])),
        fresh=draw(st.sampled_from(["full", "full", "empty"])),
    )


@dataclass
class Node:
    """One process; its clock runs at its own speed, from its own start."""

    setup: Setup
    start_ns: int
    drift: int
    """Parts in 100 000."""
    clock: ManualClock = field(init=False)
    limiter: Limiter = field(init=False)
    queue: _CompletionQueue = field(init=False)
    ids: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.clock = ManualClock(self.start_ns)
        self.limiter = self.setup.limiter(self.clock)
        self.queue = _CompletionQueue(-1)

    def follow(self, now_us: int) -> None:
        self.clock.set(self.start_ns + (now_us - START_US) * (100_000 + self.drift) // 100)


@dataclass
class Message:
    """A request in flight, and its reply once Redis has run it."""

    node: Node
    request: _Request
    reply: Reply | None = None


def excess(admitted: list[tuple[int, int]], rate: Rate, *, is_window: bool) -> int:
    """By how many units, rounded up, the worst span exceeds the rate; admissions are (µs, cost)."""
    admitted = sorted(admitted)
    period_us = rate.period_ns // 1000
    worst = 0
    for i, (start, _) in enumerate(admitted):
        total = 0
        for end, cost in admitted[i:]:
            if is_window and end - start >= period_us:
                break
            total += cost
            allowed = rate.limit if is_window else rate.burst + rate.limit * (end - start) / period_us
            if total > allowed:
                # Exactly: the division above is only an estimate.
                over = (total - rate.burst) * period_us - (0 if is_window else rate.limit * (end - start))
                worst = max(worst, -(-over // period_us))
    return worst


class World(RuleBasedStateMachine):
    """Nodes, a network and a Redis that loses no write."""

    client: redis.Redis
    script: str | None = None
    loses_state = False

    @initialize(
        setup=setups(),
        clocks=st.lists(st.tuples(st.integers(0, 10**12), st.integers(-100, 100)), min_size=1, max_size=3),
    )
    def begin(self, setup: Setup, clocks: list[tuple[int, int]]) -> None:
        self.setup = setup
        self.now_us = START_US
        self.redis_behind_us = 0
        self.state = CentralState(self.client, PREFIX + b"k", self.script)
        self.nodes = [Node(setup, start, drift) for start, drift in clocks]
        self.made = len(self.nodes)
        self.messages: list[Message] = []
        self.done: list[Message] = []
        self.asked = 0
        self.calls: dict[int, int] = {}
        self.asides: set[int] = set()
        self.refunded = 0
        self.admitted: list[tuple[int, int]] = []
        self.fallback: list[tuple[int, int]] = []
        self.losses = 0

    # --- events -----------------------------------------------------------------------------

    @rule(units=st.integers(0, 12), off_us=st.integers(-1, 1), what=st.sampled_from(["token", "ttl", "us"]))
    def wait(self, units: int, off_us: int, what: str) -> None:
        rate = self.setup.rates[0]
        step = {"token": rate.period_ns // 1000 // rate.limit, "ttl": TTL_US // 4, "us": 1}[what]
        self.now_us += max(0, units * step + off_us)
        for node in self.nodes:
            node.follow(self.now_us)

    @rule(which=st.integers(0, 9), cost=st.integers(1, 4), times=st.integers(1, 3))
    def hit(self, which: int, cost: int, times: int) -> None:
        node = self.nodes[which % len(self.nodes)]
        for _ in range(times):
            self.asked += 1
            self.calls[self.asked] = cost
            decision = node.limiter._submit("k", cost, node.queue, self.asked)
            if decision is not None:
                self.note(decision, self.now_us)

    @rule(which=st.integers(0, 9), cost=st.integers(1, 4))
    def hit_and_refund(self, which: int, cost: int) -> None:
        node = self.nodes[which % len(self.nodes)]
        before = node.limiter._ledger()
        if node.limiter.stats().held >= cost:
            assert node.limiter.hit("k", cost).source == "lease"
            node.limiter.refund("k", cost)
            assert node.limiter._ledger() == before

    @precondition(lambda self: self.asked % 4 == 2)
    @rule(which=st.integers(0, 9), cost=st.integers(0, 4))
    def look(self, which: int, cost: int) -> None:
        node = self.nodes[which % len(self.nodes)]
        self.asked += 1
        if node.limiter._submit_peek("k", cost, node.queue, self.asked) is None:
            self.asides.add(self.asked)

    @rule(which=st.integers(0, 9))
    def send(self, which: int) -> None:
        node = self.nodes[which % len(self.nodes)]
        for request in node.limiter._collect():
            node.ids.add(read_request(request.body)["node"])
            self.messages.append(Message(node, request))

    @rule(which=st.integers(0, 9), times=st.integers(1, 3))
    def exchange(self, which: int, times: int) -> None:
        """An exchange without a fault."""
        for _ in range(times):
            self.send(which)
            node = self.nodes[which % len(self.nodes)]
            for message in [m for m in self.messages if m.node is node]:
                if message.reply is None:
                    self.run(message)
                self.deliver(message)

    @precondition(lambda self: self.messages)
    @rule(which=st.integers(0, 9))
    def arrive(self, which: int) -> None:
        """A request of any age reaches Redis, possibly not for the first time."""
        self.run(self.messages[which % len(self.messages)])

    @precondition(lambda self: self.messages)
    @rule(which=st.integers(0, 9))
    def answer(self, which: int) -> None:
        message = self.messages[which % len(self.messages)]
        if message.reply is not None:
            self.deliver(message)

    @precondition(lambda self: self.messages)
    @rule(which=st.integers(0, 9), is_lost=st.booleans())
    def give_up(self, which: int, is_lost: bool) -> None:
        """A node stops waiting. The request may still arrive, and so may the reply."""
        message = self.messages[which % len(self.messages)]
        message.node.limiter._complete(message.request, None)
        self.open_mail(message.node, self.now_us)
        if is_lost:
            self.messages.remove(message)

    @precondition(lambda self: self.done)
    @rule(which=st.integers(0, 99))
    def replay(self, which: int) -> None:
        """A request reaches Redis once more, or a reply the node."""
        message = self.done[which % len(self.done)]
        self.run(message)
        if which % 2:
            self.deliver(message)

    @precondition(lambda self: self.asked % 4 == 1)
    @rule(which=st.integers(0, 2))
    def crash(self, which: int) -> None:
        old = self.nodes[which % len(self.nodes)]
        node = Node(self.setup, old.start_ns, old.drift)
        node.follow(self.now_us)
        self.nodes[which % len(self.nodes)] = node
        self.made += 1
        for message in [m for m in self.messages if m.node is old]:
            message.node = Node(self.setup, 0, 0)  # requests may still arrive, replies are lost

    @precondition(lambda self: self.asked % 4 == 1)
    @rule(which=st.integers(0, 2))
    def close(self, which: int) -> None:
        node = self.nodes[which % len(self.nodes)]
        node.limiter.close()
        # The next request gives back the tokens that a reply in flight still grants.
        self.exchange(which, 2)
        assert node.limiter.stats().held == 0 or any(m.node is node for m in self.messages)
        self.crash(which)

    @precondition(lambda self: self.asked % 4 == 3)
    @rule(back_us=st.sampled_from([1, 1000, 1_000_000, 50_000_000]))
    def set_redis_clock_back(self, back_us: int) -> None:
        if self.redis_behind_us + back_us <= 60_000_000:
            self.redis_behind_us += back_us

    # --- effects ----------------------------------------------------------------------------

    def run(self, message: Message) -> None:
        request = read_request(message.request.body)
        self.state.expire(self.now_us - self.redis_behind_us)
        before, leases = self.state.stored(), self.state.leases()
        message.reply = self.state.run(message.request.body, self.now_us - self.redis_behind_us)
        message.reply.at_us = self.now_us
        says_nothing = not any(request[name] for name in ("held", "back", "paid", "owed", "is_reset"))
        looks = [isinstance(cost, list) and cost[0] == LOOK for cost in request["costs"]]
        answers = zip(looks, message.reply.verdicts, strict=False)
        is_refused = message.reply.grant == 0 and all(
            look or verdict not in (-1, -3) for look, verdict in answers
        )
        is_new = before is None and self.setup.fresh == "empty"
        # A key that has expired before the clock went back looks lost to a node that has seen it.
        generation = _unpack(before)[0][1] if before else None
        restores = self.redis_behind_us > 0 and request["seen"] and request["seen"][0] != generation
        is_pure = (
            is_refused and says_nothing and request["node"] not in leases and not is_new and not restores
        )
        if is_pure and not self.losses:
            assert self.state.stored() == before  # L8

    def deliver(self, message: Message) -> None:
        assert message.reply is not None
        message.node.limiter._complete(message.request, message.reply.numbers)
        self.open_mail(message.node, message.reply.at_us)
        if message in self.messages:
            self.messages.remove(message)
            self.done.append(message)

    def open_mail(self, node: Node, at_us: int) -> None:
        for call_id, decision in node.queue.take_all():
            if call_id in self.asides:
                self.asides.remove(call_id)
                assert 0 <= decision.remaining <= self.setup.capacity
                continue
            assert self.calls.pop(call_id) == decision.cost
            self.note(decision, at_us if decision.source == "redis" else self.now_us)

    def note(self, decision: Decision, at_us: int) -> None:
        assert 0 <= decision.remaining <= self.setup.capacity
        if not decision:
            assert decision.remaining < decision.cost
            assert decision.retry_after > 0
        elif decision.source == "fallback":
            self.fallback.append((at_us, decision.cost))
        else:
            self.admitted.append((at_us, decision.cost))

    @property
    def slack(self) -> int:
        slack = self.setup.outstanding if self.setup.mode == "leased" else 0
        return slack + self.made * self.setup.optimistic + self.refunded

    @invariant()
    def never_over(self) -> None:
        for rate in self.setup.rates:
            over = excess(self.admitted, rate, is_window=self.setup.algorithm != "gcra")
            # A lost state admits one burst more, and the tokens still on lease.
            assert over <= self.slack + self.losses * (rate.burst + self.setup.outstanding)  # L1
        if self.setup.on_error == "deny":
            assert not self.fallback

    @invariant()
    def every_token_is_accounted_for(self) -> None:
        for node in self.nodes:
            granted, spent, returned, expired = node.limiter._ledger()
            assert granted == spent + returned + expired + node.limiter.stats().held  # L2

    @invariant()
    def redis_knows_of_everything_held(self) -> None:
        if self.losses:
            return
        held = [(node, node.limiter.stats().held) for node in self.nodes]
        total = sum(count for _, count in held)
        assert total <= self.setup.outstanding  # L3
        if total:
            leases = self.state.leases()
            for node, count in held:
                known = [
                    leases[i][1]
                    for i in node.ids
                    if i in leases and leases[i][0] > self.now_us - self.redis_behind_us
                ]
                assert count <= sum(known)  # L3, L4

    def teardown(self) -> None:
        if not hasattr(self, "setup"):
            return
        # L6: after any history and a pause, one call gets the whole capacity.
        longest_us = (
            max(rate.period_ns * max(rate.burst, rate.limit) // rate.limit for rate in self.setup.rates)
            // 1000
        )
        self.now_us += 60_000_000 + 4 * longest_us + 4 * TTL_US
        for which, node in enumerate(self.nodes):
            node.follow(self.now_us)
            for message in [m for m in self.messages if m.node is node]:
                node.limiter._complete(message.request, None)
            self.open_mail(node, self.now_us)
            self.messages = []
            self.hit(which, 1, 1)  # a key without state in Redis may start empty
            for _ in range(2):
                self.exchange(which, 1)
                self.now_us += 4 * longest_us + 4 * TTL_US
                node.follow(self.now_us)
            node.limiter._submit("k", self.setup.capacity, node.queue, -1 % 2**64)
            for request in node.limiter._collect():
                reply = self.state.run(request.body, self.now_us)
                node.limiter._complete(request, reply.numbers)
            assert all(node_decision for _, node_decision in node.queue.take_all())
            self.now_us += 4 * longest_us + 4 * TTL_US


class RefundingWorld(World):
    """As `World`, and nodes give units back."""

    @rule(which=st.integers(0, 9), units=st.integers(1, 4))
    def refund(self, which: int, units: int) -> None:
        """Of any units, also of more than were spent; each may be admitted once more."""
        node = self.nodes[which % len(self.nodes)]
        self.asked += 1
        self.refunded += units
        with contextlib.suppress(ConnectionError):
            if node.limiter._submit_refund("k", units, node.queue, self.asked) is None:
                self.asides.add(self.asked)


class ForgetfulWorld(World):
    """As `World`, and Redis loses writes: all of them, or the latest."""

    @initialize()
    def remember(self) -> None:
        self.copies: list[tuple[bytes | None, int | None]] = [(None, None)]

    @rule()
    def copy(self) -> None:
        self.copies.append((self.state.stored(), self.state.expires_us))

    @rule(which=st.integers(0, 9))
    def lose_state(self, which: int) -> None:
        value, expires_us = self.copies[which % len(self.copies)]
        self.state.restore(value)
        self.state.expires_us = expires_us
        self.losses += 1


def _run(machine: type[World], client: redis.Redis, stated: int, script: str | None = None) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    bound = type(machine.__name__, (machine,), {"client": client, "script": script})
    run_state_machine_as_test(
        bound,
        settings=settings(
            max_examples=examples(stated),
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.fixture
def client(redis_server: PrivateRedis) -> Any:
    with redis.Redis(port=redis_server.port) as client:
        yield client


@pytest.mark.hypothesis
def test_limit_holds_under_every_fault(client):
    _run(World, client, 30)


@pytest.mark.hypothesis
def test_units_given_back_are_admitted_once(client):
    _run(RefundingWorld, client, 20)


@pytest.mark.hypothesis
def test_excess_is_bounded_by_lost_writes(client):
    _run(ForgetfulWorld, client, 12)
