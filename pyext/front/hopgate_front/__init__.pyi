from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias, final

__all__ = ["Front", "Limit", "Template"]

Template: TypeAlias = tuple[int, Sequence[tuple[str, str]], bytes]
"""An answer: status, headers, body."""

Limit: TypeAlias = tuple[object, object | None]
"""Capsules of `hopgate_limiter.Limiter`: by client, and by IPv6 network of 48 bits."""

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
        monotonic: what `time.monotonic` returns now.

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
        monotonic: float,
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
