from collections.abc import Callable, Sequence
from pathlib import Path
from typing import final

from hopgate_front.types import (
    Limit,
    Origin,
    Record,
    ResolutionFields,
    Row,
    Template,
    VisitKind,
    Watch,
    Words,
)

__all__ = ["Front", "Held", "check_tls", "intent_of", "with_query"]

def with_query(location: str, query: str, is_overriding: bool) -> str:
    """For tests: return *location* with *query* added to its own, or in place of the same names."""

def intent_of(headers: Sequence[tuple[str, str]], previews: Words) -> str:
    """For tests: return why a request with *headers* was made: "visit", "prefetch" or "preview"."""

def check_tls(chain: bytes, key: bytes) -> None:
    """
    Check what `Front.secure` would.

    Raises:
        ValueError: as there.
    """

@final
class Held:
    """The entries of a table at one time."""

    def __len__(self) -> int: ...
    def part(self, start: int, end: int) -> list[ResolutionFields]:
        """Return the links from the place *start* on, before *end*."""

@final
class Front:
    """
    Answers hot redirects on threads of its own; passes every other request on.

    Holds no thread until `start`, so a process may fork before. Every method may be called from any thread.

    Args:
        upstream: the Unix socket of the control plane, which answers what the table does not hold. The
            header `x-hopgate-peer` names the peer of the connection to it; no client can send it.
        templates: the front's own answers, one for each status: redirects without `location`, 404, 410, 429
            without `retry-after`, 500 and 503.
        unsure: the answer to a request that the control plane may have acted on before its connection ended.
        cut_off: the answer to a request whose body ends early or is malformed.
        late: the answer to a redirect that the control plane is late for.
        not_prefetched: the answer to the prefetch of a link with a limit of its visits.
        previews: tells programs that only look at links.
        redirect_limit: limits redirects by client.
        not_found_limit: limits 404s by client.
        trusted: networks of proxies whose X-Forwarded-For counts.
        proxy_protocol: whether every connection begins with the PROXY protocol, which names the client;
            connections that are not from *trusted*, or begin otherwise, are closed then.
        base_path: the path that links may have before the slug: "", or "/like/this".
        reserved: slugs in lower case that are left to the control plane: its pages, and all below them. One
            that ends in a slash stands for those below it alone.
        bounds: of the histogram of answers, seconds, ascending.
        tarpit: delays 404 and 429: how many a second pass, how many at once, the delay of the others in
            seconds, and the most that are delayed at a time.
        max_body: the longest body that the control plane reads, bytes. It answers longer ones, and those of
            unknown length, by their heads alone.
        uploads: paths whose bodies it reads however long they are, and of unknown length. One that ends in a
            slash stands for all below it.
        caps: of connections: the seconds for the head of a request and of idleness, those that a client may
            keep an answer waiting, those for the control plane to begin an answer and to go on with it, and
            the most connections at a time.
        limit_s: the deadline of a redirect, seconds.
        monotonic: `time.monotonic`, which is read once.
        bounds_of_table: how many entries are held, the oldest of which are evicted; of these, slugs that no
            link has, and links with long targets; and minimum versions of slugs without an entry.
        watch: what is reported of single requests; None: nothing, and it costs nothing. A request that is
            passed on has what was decided in the header `x-hopgate-noted`: "TRACE-SPAN-FLAGS-BEGAN".
        describes_visits: whether what visits look like is counted, for `take_visits`.

    Raises:
        ValueError: an argument cannot be read, or a limiter is of another version.
    """

    def __new__(
        cls,
        *,
        upstream: Path | str,
        templates: Sequence[Template],
        unsure: Template,
        cut_off: Template,
        late: Template,
        not_prefetched: Template,
        previews: Words,
        redirect_limit: Limit,
        not_found_limit: Limit,
        trusted: Sequence[str],
        proxy_protocol: bool,
        base_path: str,
        reserved: Sequence[str],
        bounds: Sequence[float],
        tarpit: tuple[float, float, float, int],
        max_body: int,
        uploads: Sequence[str],
        caps: tuple[float, float, float, int],
        limit_s: float,
        monotonic: Callable[[], float],
        bounds_of_table: tuple[int, int, int, int],
        watch: Watch | None = None,
        describes_visits: bool = False,
    ) -> Front: ...
    def start(self, listeners: Sequence[int]) -> None:
        """
        Serve each of these listening sockets by a thread.

        Args:
            listeners: descriptors, which are the front's from now on.

        Raises:
            OSError: a thread or its event queue cannot be made. `end` ends the others.
        """

    def secure(self, chain: bytes, key: bytes) -> None:
        """
        Serve all later connections by TLS; those that are open go on as they are.

        Args:
            chain: PEM of the certificates, that of the server first.
            key: PEM of its private key.

        Raises:
            ValueError: they cannot be read, or do not belong together. What was set before stays.
        """

    def set_domains(self, domains: Sequence[tuple[str, str, bool, str | None, bool]]) -> None:
        """
        Look links up by these domains from now on.

        Each is a host in lower case, "" for the default domain; what the keys of its links begin with;
        whether its slugs have case; where visitors of a link go that has no visit left; and whether a slug
        may have several segments, parted by slashes.

        Raises:
            ValueError: a page cannot be sent.
        """

    def offer_many(self, rows: list[Row], now: float, until: float) -> list[bool]:
        """
        Hold *rows*, read at *now*, and answer the requests that wait for their slugs.

        Until *until*, they may be sent stale, and versions before theirs are refused.

        Returns:
            Which were accepted; the others are of another epoch, or older than what is known.

        Raises:
            ValueError: a target cannot be sent; nothing is held.
        """

    def renew_many(self, rows: list[Row], now: float, *, are_read: bool) -> None:
        """
        Hold *rows* in place of the entries of their slugs; those that are fresh answer requests that wait.

        Their links are the same, and what is answered is not. What is not held stays so. The entries become
        the newest if they *are_read*. Raises ValueError as `offer_many`.
        """

    def send_once(self, rows: list[Row], now: float) -> None:
        """Answer the requests that wait for these slugs; hold nothing. Raises ValueError as `offer_many`."""

    def accepts(self, slug: str, version: int, epoch: int, now: float) -> bool:
        """Return whether `offer_many` would hold this."""

    def change_many(self, changes: Sequence[tuple[str, int]], until: float) -> list[bool]:
        """
        Drop entries older than *changes*, by slug and version, and refuse such until *until*.

        Returns:
            Which of them are new here.
        """

    def entry(self, slug: str) -> tuple[ResolutionFields, float, float] | None:
        """Return the link that is held for *slug*, until when it is sent, and until when stale."""

    def without_fresh(self, slugs: Sequence[str], now: float) -> list[str]:
        """Return those of *slugs* whose entry would not be sent at *now*, or that have none."""

    def held(self) -> Held:
        """Return all entries as they are now."""

    def without_target(self) -> list[str]:
        """Return the slugs of held entries whose links have no target."""

    def remove(self, slug: str) -> None:
        """Answer *slug* no more; older versions are still refused."""

    def clear(self) -> None:
        """Answer no slug any more; older versions are still refused."""

    def begin_epoch(self, epoch: int) -> None:
        """Forget all slugs, and accept links of *epoch* alone."""

    def __len__(self) -> int:
        """Return how many slugs are held, expired ones included."""

    def take_clicks(self) -> list[tuple[str, int]]:
        """Return the redirects sent since the last call, by slug. A slug may be there twice."""

    def take_visits(self) -> tuple[list[tuple[VisitKind, int]], int]:
        """
        Return how many visits of each kind were redirected since the last call, and how many are in no kind.

        20,000 kinds are counted apart between two calls. Empty without `describes_visits`.
        """

    def take_answers(self) -> list[tuple[str, int, list[int], float]]:
        """Return the answers since the last call: method, status, counts by bucket, the sum of seconds."""

    def take_errors(self) -> list[tuple[int, int]]:
        """Return the answers to admitted requests that are no redirects, since the last call, by status."""

    def take_looked_up(self) -> list[tuple[int, int]]:
        """Return the answers after a look-up, since the last call, by status."""

    def take_missed(self) -> int:
        """Return how many admitted requests the table had no answer for, since the last call."""

    def take_late(self) -> tuple[int, int]:
        """Return how many stale entries were sent, and how many requests refused, as look-ups were late."""

    def look_up(self, *, is_open: bool) -> int:
        """
        Let requests wait for the control plane from now on, or pass them on instead.

        Returns:
            A descriptor that is readable when `take_misses` or `take_renewals` has any.
        """

    def take_misses(self) -> tuple[list[str], list[tuple[str, int]], bool]:
        """
        Return what requests still wait for: each once, until it is answered.

        Returns:
            Slugs to look up: `offer_many`, `send_once`, `send_held` or `refuse` them. Slugs of which visits
            are to be leased, and for which version: answer by `leased` or `refuse_lease`. Whether there are
            renewals.
        """

    def ring_from(self, count: int) -> None:
        """Make the descriptor of `look_up` readable only when *count* slugs wait, or other questions."""

    def take_renewals(self) -> list[str]:
        """Return slugs that are held and visited, and will soon end: nothing waits for them."""

    def awaited(self, slugs: Sequence[str]) -> list[int]:
        """
        Return how many requests wait for each of *slugs*.

        If none does, its look-up is over without an answer.
        """

    def send_held(self, slugs: Sequence[str]) -> list[str]:
        """Answer the requests that wait for *slugs* by the table; return those that it does not hold."""

    def refuse(self, slugs: Sequence[str], answers: Sequence[Template]) -> int:
        """Answer the requests that wait for *slugs* by *answers*, in turn; return how many they were."""

    def take_visit(self, slug: str, version: int, spend: bool, now: float) -> int:
        """
        Spend a visit of *slug*, which is at *version* or later; if not *spend*, only look for one.

        Returns:
            -1: it was there; 0: none is left; otherwise the version to make a lease for.
        """

    def add_visits(self, slug: str, version: int, visits: int, now: float, exhausted_until: float) -> bool:
        """Add *visits*, leased for *version*; False, without effect: a lease for a later one is held."""

    def drop_older_visits(self, slug: str, version: int) -> int | None:
        """Drop a lease made before *version*, and return what was left of it."""

    def idle_visits(self, used_before: float, now: float) -> list[str]:
        """
        Return the slugs whose lease was last used at *used_before* or earlier.

        Without those that are known to be exhausted at *now*.
        """

    def drop_idle_visits(self, slug: str, used_before: float, now: float) -> int | None:
        """Drop the lease of *slug* if it is idle, and return what was left of it."""

    def leased(self, slug: str, version: int, has_limit: bool) -> None:
        """
        Let the requests that wait for a lease of *slug* look again.

        Without a limit, those that know the link at *version* or earlier go on without a lease.
        """

    def refuse_lease(self, slug: str, answer: Template) -> int:
        """Answer the requests that wait for a lease of *slug* by *answer*; return how many they were."""

    def origins(self, slugs: list[str]) -> dict[str, Origin]:
        """Return, by slug, the recorded requests that wait for the look-ups of *slugs*: one of each slug."""

    def take_records(self, limit: int) -> list[Record]:
        """Return what is reported of requests that have ended, oldest first: each once, *limit* at most."""

    @property
    def records_dropped(self) -> tuple[int, int]:
        """Spans, and lines, that did not fit since the start, as `take_records` was not called in time."""

    @property
    def connections(self) -> int:
        """Open connections."""

    @property
    def unanswered(self) -> int:
        """Requests that the control plane did not answer."""

    def drain(self, limit: float) -> bool:
        """
        Accept no more connections, and wait until those that are open have ended with the request under way.

        Returns:
            Whether they have ended within *limit* seconds.
        """

    def end(self) -> None:
        """Close what is open and wait for the threads. May be called twice."""
