"""
One endpoint: its handler, and the declaration that everything else is derived from.

The declaration decides which headers are read, what admission control and rate limits are asked
for, how long the handler may take, how the body is decoded, and what the OpenAPI document says.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from app.ports import Policy
from app.resilience.admission import WorkKind
from app.service.keys import Credential, Scope
from app.web.request import Request
from app.web.response import Response

# The problems of every operation.
ALWAYS = (400, 401, 403, 429, 503)


@dataclass(frozen=True, slots=True)
class Parameter:
    """
    A parameter of an operation; `schema` is a JSON Schema. Parameters of the path are derived from it.

    `is_list`: a header that may be sent in several lines, a parameter of the query that may be sent several
    times. A list that is not takes commas.
    """

    name: str
    place: Literal["query", "header"]
    schema: Mapping[str, Any]
    description: str = ""
    is_list: bool = False
    is_required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """
    How an endpoint takes large bodies: it reads them itself, once the client is known to be allowed to.

    A body has at most `max_bytes`, and `body_s` seconds to arrive.
    """

    max_bytes: int
    body_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """
    What an endpoint of the API needs and promises.

    Args:
        scope: what the key must permit; None: any key will do.
        work: what admission control takes it for.
        deadline_s: bound of the whole operation, in seconds.
        success: the status and the schema of the body, if there is one.
        media_types: of the body, if that is a file of one of these types instead.
        alike: statuses of other answers with the same body.
        empty: statuses of other answers that have no body.
        problems: statuses of problems, beside those that every operation has.
        body: the schema of the request's body, set by `ApiMiddleware.endpoint`; None if it has none.
        limit: a rate limit of its own, beside the one of the whole API.
        upload: how large bodies are taken; None: they are refused.
        takes: media types of a body that is a file, whatever it says; empty: it is none.
        gives: media types of an answer that is text; empty: it is JSON.
        gives_too: media types of an answer that is text, in place of JSON where it is asked for.
        stream_type: the media type of a success that has no end, and no schema.
        asks_others: the answer waits for a server of others, whose time says nothing of the load.
        stale_key_s: while the store is away, a key counts that was read within so many seconds.
    """

    summary: str
    scope: Scope | None
    work: WorkKind
    deadline_s: float
    success: tuple[int, type | None]
    media_types: tuple[str, ...] = ()
    alike: tuple[int, ...] = ()
    empty: tuple[int, ...] = ()
    problems: tuple[int, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    body: type | None = None
    limit: Policy | None = None
    upload: Upload | None = None
    takes: tuple[str, ...] = ()
    gives: tuple[str, ...] = ()
    gives_too: tuple[str, ...] = ()
    stream_type: str | None = None
    asks_others: bool = False
    stale_key_s: float = 0.0

    @property
    def query(self) -> frozenset[str]:
        """The names of the query parameters."""
        return frozenset(one.name for one in self.parameters if one.place == "query")

    @property
    def query_lists(self) -> frozenset[str]:
        """Those of them that may be sent several times."""
        return frozenset(one.name for one in self.parameters if one.place == "query" and one.is_list)


@dataclass(frozen=True, slots=True)
class Dialect:
    """
    How an endpoint speaks as another program does, for the clients of that program.

    Args:
        key: returns the API key of a request, or what stands for one; nothing if there is none.
        problem: returns a problem as the program would say it, any other answer as it is. The request is None
            if the problem is that it cannot be read.
        headers: what it reads besides `authorization`, in lower case.
        takes_chunks: every body is a JSON object, of which no part but the whole can be read; so bodies that
            do not announce their length are taken, as its clients send them.
    """

    key: Callable[[Request], Credential]
    problem: Callable[[Response, Request | None], Response]
    headers: frozenset[str] = frozenset()
    takes_chunks: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """
    What answers one method of one path, on any server.

    `operation` is None for a public endpoint: no key, no limits, not in the OpenAPI document. It may read
    the headers *reads*, in lower case, that an operation reads too. An endpoint with a `dialect` is not of
    this service's own API, and not in the document either.
    """

    name: str
    handle: Callable[[Request], Awaitable[Response]]
    operation: Operation | None = None
    reads: frozenset[str] = frozenset()
    dialect: Dialect | None = None

    @property
    def statuses(self) -> frozenset[int]:
        """The statuses that it usually answers with."""
        if self.operation is None:
            return frozenset({200, 400, 500, 503})
        operation = self.operation
        return frozenset(
            {operation.success[0], *operation.alike, *operation.empty, *operation.problems, *ALWAYS, 500}
        )

    @property
    def headers(self) -> frozenset[str]:
        """The request headers that the endpoint reads, in lower case."""
        if self.operation is None:
            return self.reads
        declared = {one.name.lower() for one in self.operation.parameters if one.place == "header"}
        body = {"content-type", "content-encoding"} if self.operation.body or self.operation.takes else set()
        spoken = self.dialect.headers if self.dialect is not None else frozenset()
        return frozenset({"authorization", *declared, *body, *spoken})

    @property
    def list_headers(self) -> frozenset[str]:
        """Those of `headers` whose value is a list."""
        declared = self.operation.parameters if self.operation is not None else ()
        lists = {one.name.lower() for one in declared if one.place == "header" and one.is_list}
        return frozenset({"content-encoding", *lists}) & self.headers


class Route(NamedTuple):
    """An endpoint and where it is. `path` as Robyn writes it: `/api/v1/links/:slug`."""

    method: str
    path: str
    endpoint: Endpoint


def template(path: str) -> str:
    """Return *path* of a route as documents write it: `/api/v1/links/{slug}`."""
    return "/".join(f"{{{part[1:]}}}" if part[:1] == ":" else part for part in path.split("/"))
