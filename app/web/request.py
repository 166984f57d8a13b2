"""An HTTP request as plain data: what handlers read, whichever server received it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl

from app.web.intent import Intent
from app.web.response import Response

if TYPE_CHECKING:
    from app.web.body import LargeBody

# As many as an operation takes, and some more.
MAX_QUERY_FIELDS = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """
    One request to one endpoint.

    `headers` holds only those that an endpoint declares (see `app.web.endpoint`), by their names in
    lower case; `repeated`, the query parameters that were sent twice, with all their values. `client` is
    the address that rate limits count by. `intent` reads why the request was made, `wants_page` whether it
    prefers HTML, `is_local` whether a program on this machine sent it directly: few handlers need to know.
    `lines` gives the lines of a header, declared or not, that can be read. `large` is a body that its handler
    reads.
    """

    method: str
    path_params: Mapping[str, str]
    query_string: str
    query: Mapping[str, str]
    repeated: Mapping[str, Sequence[str]]
    headers: Mapping[str, str]
    body: bytes
    client: str
    intent: Callable[[], Intent] = lambda: Intent.VISIT
    wants_page: Callable[[], bool] = lambda: False
    is_local: Callable[[], bool] = lambda: False
    lines: Callable[[str], Sequence[str]] = lambda _name: ()
    large: LargeBody | None = None

    async def whole_body(self) -> bytes | Response:
        """Return the body, also a large one, or the answer that refuses it."""
        return self.body if self.large is None else await self.large.load()

    def values(self, name: str) -> Sequence[str]:
        """Return every value of the query parameter *name*."""
        if name in self.repeated:
            return self.repeated[name]
        return (self.query[name],) if name in self.query else ()


class Query(NamedTuple):
    """The parameters of a query string, the last value of each, and all values of those that occur twice."""

    values: Mapping[str, str]
    repeated: Mapping[str, Sequence[str]]


def parse_query(query_string: str) -> Query:
    """
    Return the parameters of *query_string*.

    Raises:
        ValueError: there are too many.
    """
    try:
        pairs = parse_qsl(query_string, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS)
    except ValueError:
        raise ValueError(f"the query has more than {MAX_QUERY_FIELDS} parameters") from None
    return query_of(pairs)


def query_of(pairs: Sequence[tuple[str, str]]) -> Query:
    """Return the query of decoded *pairs*."""
    last = dict(pairs)
    if len(last) == len(pairs):
        return Query(last, {})
    counts = Counter(name for name, _ in pairs)
    repeated = {name: [value for one, value in pairs if one == name] for name in counts if counts[name] > 1}
    return Query(last, repeated)
