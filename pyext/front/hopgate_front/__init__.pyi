from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias, final

__all__ = ["Front", "Limit", "Origin", "Record", "Template", "Watch"]

Template: TypeAlias = tuple[int, Sequence[tuple[str, str]], bytes]
"""An answer: status, headers, body."""

Limit: TypeAlias = tuple[object, object | None]
"""Capsules of `hopgate_limiter.Limiter`: by client, and by IPv6 network of 48 bits."""

Watch: TypeAlias = tuple[tuple[int, bool, float] | None, int | None, int]
"""
What is reported of single requests.

1. Spans; None: there are none. Traces whose low 64 bits are below this bound are recorded or, if the second
   is true, those that a trusted caller records; others if they take so many seconds, or fail.
2. The bound of the access log, likewise; None: there are no lines.
3. How many records wait at most.
"""

Origin: TypeAlias = tuple[int, int, float, str, str]
"""A recorded request: its trace, its span, when it began, and the tracestate and baggage of its caller."""

Record: TypeAlias = tuple[
    tuple[int, int, int, str],
    tuple[float, float, int],
    tuple[bool, bool, bool, bool],
    tuple[str, str],
    tuple[str, str],
]
"""
A request that the front answered, in five parts. Times are those of `time.monotonic`, in seconds.

1. Its trace, its span, its parent (0: none), and the tracestate of that.
2. When it began, how long it took, and its status (0: the connection ended).
3. Whether it is recorded, has a late span, has a line, was a miss.
4. Its method, and the version of HTTP.
5. The address of the client or its IPv6 network, and the id that it gave the request.
"""

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
        redirect_limit: limits redirects by client.
        not_found_limit: limits 404s by client.
        trusted: networks of proxies whose X-Forwarded-For counts.
        base_path: the path that links may have before the slug: "", or "/like/this".
        reserved: slugs in lower case that are pages of the control plane.
        bounds: of the histogram of answers, seconds, ascending.
        tarpit: delays 404 and 429: how many a second pass, how many at once, the delay of the others in
            seconds, and the most that are delayed at a time.
        max_body: the longest body that the control plane reads, bytes. It answers longer ones, and those of
            unknown length, by their heads alone.
        caps: of connections: the seconds for the head of a request and of idleness, those that a client may
            keep an answer waiting, those for the control plane to begin an answer and to go on with it, and
            the most connections at a time.
        monotonic: `time.monotonic`, which is read once.
        watch: what is reported of single requests; None: nothing, and it costs nothing. A request that is
            passed on has what was decided in the header `x-hopgate-noted`: "TRACE-SPAN-FLAGS-BEGAN".

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
        redirect_limit: Limit,
        not_found_limit: Limit,
        trusted: Sequence[str],
        base_path: str,
        reserved: Sequence[str],
        bounds: Sequence[float],
        tarpit: tuple[float, float, float, int],
        max_body: int,
        caps: tuple[float, float, float, int],
        monotonic: Callable[[], float],
        watch: Watch | None = None,
    ) -> Front: ...
    def start(self, listeners: Sequence[int]) -> None:
        """
        Serve each of these listening sockets by a thread.

        Args:
            listeners: descriptors, which are the front's from now on.

        Raises:
            OSError: a thread or its event queue cannot be made. `end` ends the others.
        """

    def put(
        self, slug: str, status: int, location: str | None, free_until: float, forwards_query: bool
    ) -> None:
        """
        Answer *slug* by the template of *status* until *free_until*, seconds of `time.monotonic`.

        Args:
            location: the target of a redirect.
            forwards_query: whether a query is added to the target; such requests are passed on.

        Raises:
            ValueError: the target cannot be sent.
        """

    def remove(self, slug: str) -> None:
        """Answer *slug* no more."""

    def clear(self) -> None:
        """Answer no slug any more."""

    def __len__(self) -> int:
        """Return how many slugs are held, expired ones included."""

    def take_clicks(self) -> list[tuple[str, int]]:
        """Return the redirects sent since the last call, by slug. A slug may be there twice."""

    def take_answers(self) -> list[tuple[int, list[int], float]]:
        """Return the answers since the last call, by status: counts by bucket, and the sum of seconds."""

    def take_errors(self) -> list[tuple[int, int]]:
        """Return the answers to admitted requests that are no redirects, since the last call, by status."""

    def take_looked_up(self) -> list[tuple[int, int]]:
        """Return the answers after a look-up, since the last call, by status."""

    @property
    def missed(self) -> tuple[int, int]:
        """
        Admitted requests since the start that the table had no answer for, and those passed on after all.

        The first without the second: those are admitted and counted again.
        """

    def look_up(self, *, is_open: bool) -> int:
        """
        Let requests wait for look-ups from now on, or pass them on instead.

        Returns:
            A descriptor that is readable when `take_misses` has slugs.
        """

    def take_misses(self) -> list[str]:
        """Return the slugs to look up: `put` each that can be, and then call `resolved`."""

    def is_awaited(self, slug: str) -> bool:
        """
        Return whether a request still waits for *slug*.

        If none does, its look-up is over without `resolved`.
        """

    def resolved(self, slug: str) -> None:
        """Let the requests for *slug* go on: by the table or, if it has no entry, in the control plane."""

    def origins(self, slugs: list[str]) -> dict[str, Origin]:
        """Return, by slug, the recorded requests that wait for the look-ups of *slugs*: one of each slug."""

    def take_records(self) -> list[Record]:
        """Return what is reported the requests that have ended since the last call."""

    @property
    def records_dropped(self) -> int:
        """Spans that did not fit, as `take_records` was not called in time."""

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
