"""The rates of an application, and the rules by which its requests are charged. No framework, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from hopgate_limiter import Decision, Key, Limiter, Rate, RedisSync, Stats
from hopgate_limiter.contrib import _arguments
from hopgate_limiter.contrib._answers import problem
from hopgate_limiter.contrib._call import Call
from hopgate_limiter.contrib._keys import KeyOf, by_address
from hopgate_limiter.contrib._paths import NO_RULE, PathRules
from hopgate_limiter.contrib._proxies import TrustedProxies

CostOf: TypeAlias = int | Callable[[Call], int]
"""Units that a request costs; 0 is always admitted."""

Rates: TypeAlias = str | Rate | Limiter
"""Rates as `Limiter` takes them, or a limiter that was made with options of its own."""

MARK = "_hopgate_limits"
"""Attribute of a view with limits of its own, or none: the `RateLimits` whose default it does not get."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit of some requests."""

    limiter: Limiter
    key: KeyOf
    cost: CostOf
    name: str | None
    """Requests under one name share their budgets; None: each route has its own."""
    is_shadow: bool
    is_shared: bool


Charge: TypeAlias = tuple[Limiter, Key, int]
"""A limiter that a request was charged by, with its key there and the cost."""


class Charges:
    """What one request has been charged, by all its limits."""

    __slots__ = ("decision", "made", "writer")

    def __init__(self, writer: object = None) -> None:
        """Begin with nothing; *writer* is what writes the headers of this request, and nothing else does."""
        self.writer = writer
        self.decision: Decision | None = None
        self.made: list[Charge] = []
        """What `refund` gives back."""

    def add(self, limiter: Limiter, key: Key, cost: int) -> None:
        """Note what `refund` gives back."""
        self.made.append((limiter, key, cost))

    def show(self, decision: Decision) -> None:
        """Announce the refusal, or else the decision with the least left."""
        shown = self.decision
        if shown is None or not decision.allowed or (shown.allowed and decision.remaining < shown.remaining):
            self.decision = decision

    def refund(self) -> None:
        """
        Give everything back: another limit has refused the request.

        What Redis does not take back while it is away stays charged, and fails no request.
        """
        for limiter, key, cost in self.made:
            with suppress(ConnectionError):
                limiter.refund(key, cost)
        self.made.clear()

    async def refund_async(self) -> None:
        """As `refund`, for an event loop."""
        for limiter, key, cost in self.made:
            with suppress(ConnectionError):
                await limiter.refund_async(key, cost)
        self.made.clear()


def _admits(limit: Limit, charge: Charge, decision: Decision, charges: Charges) -> bool:
    """Note what was charged, and tell whether *limit* has nothing against the request."""
    if not decision.allowed or decision.source == "shadow":
        return False
    charges.made.append(charge)
    if not limit.is_shadow:
        if charges.decision is None:  # mostly: one call less
            charges.decision = decision
        else:
            charges.show(decision)
    return True


def _is_shadow(limit: Limit, decision: Decision) -> bool:
    """Tell whether a limit that does not admit refuses nothing: it is in shadow mode, or its limiter is."""
    return decision.allowed or limit.is_shadow


class RateLimits:
    """
    The limits of an application.

        limits = RateLimits("100/min burst 20", routes={"POST /login": "5/min", "/healthz": None})

    A request is charged by the rule of its path, else by the default rates, and by the limits of its route.
    All must admit it: if one refuses, what the others have charged is given back.
    Make one object when the application starts; threads, event loops and forked processes may share it.
    """

    def __init__(
        self,
        *default: Rates,
        key: KeyOf | None = None,
        cost: CostOf = 1,
        routes: Mapping[str, Rates | None] | None = None,
        exempt: Iterable[str] = (),
        exempt_methods: Collection[str] = (),
        trusted_proxies: Iterable[str] = (),
        headers: Literal["ietf", "legacy", "both"] | None = "ietf",
        answer: Callable[[Call, Decision], Any] = problem,
        on_refused: Callable[[Call, Decision], None] | None = None,
        shadow: bool = False,
        redis: str | None = None,
        prefix: str = "rl:",
        mode: Literal["strict", "leased", "every_hit"] = "strict",
        on_error: Literal["share", "deny", "allow"] = "share",
        make: Callable[[str, tuple[Rate, ...]], Limiter] | None = None,
    ) -> None:
        """
        Set the rates and the rules.

        Args:
            default: rates of each client, over all routes without a rule or a limit of their own; none by
                default. Several at once: all must admit a request.
            key: the subject that is counted; by default the client's address, behind `trusted_proxies`.
            cost: units that a request costs, or a function that tells.
            routes: rates of requests whose path matches, instead of the default: "/path", "GET /path",
                "/users/{id}", "/static/*". Each pattern has a budget of its own; None exempts.
            exempt: such patterns without any limit of path or default.
            exempt_methods: methods without any limit, as "OPTIONS" for preflight requests (CORS).
            trusted_proxies: networks of proxies whose X-Forwarded-For counts; "unix:" for a Unix socket.
            headers: the style of `Decision.headers`; None sends none but Retry-After.
            answer: makes the answer to a refused request: an `Answer`, or a response of the framework.
            on_refused: is called for each refusal, in shadow mode for what would have been one. It must not
                block.
            shadow: count and report, and never refuse or announce anything.
            redis: a Redis that all processes share the limits through, as in `RedisSync`.
            prefix: of all keys in that Redis.
            mode: how exactly they are shared, as in `RedisSync`: "strict" holds a quarter of the burst back,
                "every_hit" asks Redis each time and gives all of it.
            on_error: how requests are decided while that Redis is away, as in `RedisSync`.
            make: makes the limiter of some rates, for every other option. The name that it gets is the same
                for the same rates in all processes, and different for others: a part of a prefix.

        Raises:
            ValueError: a rate, a pattern or a network that cannot be read, an unknown word, a cost below 0,
                `redis` together with `make`.
            TypeError: an argument of another type.
        """
        _arguments.function_or_none("key", key)
        _arguments.cost(cost)
        if routes is not None:
            _arguments.mapping("routes", "a mapping of patterns to rates, or None", routes)
        _arguments.texts("exempt", '["/healthz"]', exempt)
        _arguments.texts("exempt_methods", '["OPTIONS"]', exempt_methods)
        _arguments.of_type(
            "trusted_proxies", "several networks, as ['10.0.0.0/8']", trusted_proxies, Iterable
        )
        _arguments.word("headers", headers, "ietf", "legacy", "both", None)
        _arguments.function("answer", answer)
        _arguments.function_or_none("on_refused", on_refused)
        _arguments.flag("shadow", shadow)
        _arguments.text_or_none("redis", redis)
        _arguments.text("prefix", prefix)
        _arguments.word("mode", mode, "strict", "leased", "every_hit")
        _arguments.word("on_error", on_error, "share", "deny", "allow")
        _arguments.function_or_none("make", make)
        if redis is not None and make is not None:
            raise ValueError(
                "redis must be None if make is given: the limiters that it makes are shared or not"
            )
        self.trusted = TrustedProxies(trusted_proxies)
        self.header_style = headers
        self.answer = answer
        self.enabled = True
        """False switches all limits off, as in the tests of an application."""
        self._on_refused = on_refused
        self._key = key or by_address()
        self._cost = cost
        self._is_shadow = shadow
        self._redis = redis
        self._prefix = prefix
        self._mode = mode
        self._on_error = on_error
        self._make = make or self._limiter
        self._limiters: dict[tuple[Rate, ...], Limiter] = {}
        self._exempt_methods = frozenset(method.upper() for method in exempt_methods)
        self.default = self.make_limit(*default, name="*") if default else None
        """The limit of requests without another one."""
        rules: dict[str, Limit | None] = {}
        for pattern, rates in (routes or {}).items():
            rules[pattern] = None if rates is None else self.make_limit(rates, name=pattern)
        self._rules = PathRules({**rules, **dict.fromkeys(exempt)})

    # --- making ---------------------------------------------------------------------------

    def make_limit(
        self,
        *rates: Rates,
        name: str | None = None,
        key: KeyOf | None = None,
        cost: CostOf | None = None,
        shadow: bool | None = None,
    ) -> Limit:
        """
        Make a limit that counts for itself; what is not given is as for the default.

        Args:
            rates: at least one; all must admit a request.
            name: limits of one name and the same rates share budgets; by default each route has its own.
            key: the subject that is counted.
            cost: units that a request costs.
            shadow: count and report only.
        """
        _arguments.text_or_none("name", name)
        _arguments.function_or_none("key", key)
        if cost is not None:
            _arguments.cost(cost)
        if shadow is not None:
            _arguments.flag("shadow", shadow)
        limiter = self._limiter_of(rates)
        return Limit(
            limiter=limiter,
            key=key or self._key,
            cost=self._cost if cost is None else cost,
            name=name,
            is_shadow=self._is_shadow if shadow is None else shadow,
            is_shared=limiter._is_shared,  # noqa: SLF001
        )

    def _limiter_of(self, rates: tuple[Rates, ...]) -> Limiter:
        """Limits with the same rates have one limiter: each shared one keeps a thread and a connection."""
        if len(rates) == 1 and isinstance(rates[0], Limiter):
            return rates[0]
        parsed: list[Rate] = []
        for rate in rates:
            if isinstance(rate, Limiter):
                raise TypeError("a limiter must be the only rate: several are several limits")
            _arguments.of_type("a rate", "str, Rate or Limiter", rate, str, Rate)
            parsed += Rate.parse(rate) if isinstance(rate, str) else (rate,)
        found = tuple(parsed)
        if not found:
            raise ValueError("a limit must have at least one rate")
        if found not in self._limiters:
            made = self._make(_name_of(found), found)
            if not isinstance(made, Limiter):
                raise TypeError(f"make must return a Limiter, not {type(made).__name__}")
            self._limiters[found] = made
        return self._limiters[found]

    def _limiter(self, name: str, rates: tuple[Rate, ...]) -> Limiter:
        if self._redis is None:
            return Limiter(*rates)
        sync = RedisSync(
            self._redis, prefix=f"{self._prefix}{name}:", mode=self._mode, on_error=self._on_error
        )
        return Limiter(*rates, sync=sync)

    @property
    def has_rules(self) -> bool:
        """Whether any request has a limit by default or by its path."""
        return self.default is not None or bool(self._rules)

    # --- deciding -------------------------------------------------------------------------

    def rule(self, method: str, path: str) -> Limit | None:
        """Return the limit of a request by its path, else the default; None if it is exempt."""
        if not self._rules:
            return self.default
        found = self._rules.find(method, path)
        if found is not NO_RULE:
            return found
        if path.endswith("/") and path != "/":
            # Many routers serve a path with and without a slash at its end; an exempt one has to be exact.
            found = self._rules.find(method, path.rstrip("/")) or found
        return self.default if found is NO_RULE else found

    def check(self, limit: Limit, route: str, call: Call, charges: Charges) -> Decision | None:
        """
        Charge a request, and return the refusal, if it is one; it may wait for Redis.

        Args:
            limit: made by `make_limit`.
            route: names the route of the request, alike in all processes.
            call: the request.
            charges: what it has been charged before; given back if this limit refuses.
        """
        asked = self._asked(limit, route, call)
        if asked is None:
            return None
        limiter, key, cost = asked
        decision = limiter.hit(key, cost)
        # As `_admits`, for what there is most of: one call less.
        if (
            charges.decision is None
            and decision.allowed
            and not limit.is_shadow
            and decision.source != "shadow"
        ):
            charges.made.append(asked)
            charges.decision = decision
            return None
        if _admits(limit, asked, decision, charges):
            return None
        if not _is_shadow(limit, decision):
            charges.refund()
        return self._refusal(limit, decision, call, charges)

    async def check_async(self, limit: Limit, route: str, call: Call, charges: Charges) -> Decision | None:
        """
        As `check`, for an event loop, which goes on while Redis decides.

        A limit that is not shared waits for nothing: `check` decides it for less than a coroutine costs.
        """
        asked = self._asked(limit, route, call)
        if asked is None:
            return None
        limiter, key, cost = asked
        decision = await limiter.hit_async(key, cost) if limit.is_shared else limiter.hit(key, cost)
        if _admits(limit, asked, decision, charges):
            return None
        if charges.made and not _is_shadow(limit, decision):
            await charges.refund_async()
        return self._refusal(limit, decision, call, charges)

    def _asked(self, limit: Limit, route: str, call: Call) -> Charge | None:
        """Return what the request is charged; None if there is nothing to decide."""
        if not self.enabled or (self._exempt_methods and call.method in self._exempt_methods):
            return None
        key = limit.key(call)
        if key is None:
            return None
        cost = limit.cost
        scope = limit.name or route
        # No route has a NUL in it, so that no text is the key of another type's value.
        scoped = f"{scope} {key}" if isinstance(key, str) else f"{scope}\0{key!r}"
        return limit.limiter, scoped, cost if isinstance(cost, int) else cost(call)

    def _refusal(self, limit: Limit, decision: Decision, call: Call, charges: Charges) -> Decision | None:
        """Report a refusal, after the other charges were given back; return it unless it is a shadow."""
        is_shadow = _is_shadow(limit, decision)
        if not is_shadow:
            charges.show(decision)
        if self._on_refused is not None:
            self._on_refused(call, decision)
        return None if is_shadow else decision

    def headers(self, charges: Charges, status: int) -> dict[str, str]:
        """Return the headers for a response with *status*."""
        decision = charges.decision
        if decision is None:
            return {}
        style = self.header_style
        if style is not None:
            return decision.headers(style=style, redirect=300 <= status < 400)
        if decision.allowed:
            return {}
        return {name: value for name, value in decision.headers().items() if name == "Retry-After"}

    # --- the limiters ---------------------------------------------------------------------

    def stats(self) -> dict[str, Stats]:
        """Return the counters of each limiter that was made here, by the names of its rates."""
        return {
            "; ".join(rate.name for rate in rates): limiter.stats()
            for rates, limiter in self._limiters.items()
        }

    def close(self) -> None:
        """Close these limiters, which give back what they have on lease: once, at the end of the process."""
        for limiter in self._limiters.values():
            limiter.close()


def _name_of(rates: tuple[Rate, ...]) -> str:
    """Name rates by their numbers: as a prefix in Redis, rates that differ must not share state."""
    return ",".join(f"{rate.limit}/{_period(rate.period_ns)}/{rate.burst}" for rate in rates)


def _period(ns: int) -> str:
    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{ns}ns" if rest else f"{seconds}s"
