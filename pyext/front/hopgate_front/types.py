"""The types of what `hopgate_front.Front` takes and returns."""

from collections.abc import Sequence
from typing import TypeAlias

Page: TypeAlias = tuple[Sequence[tuple[str, str]], bytes]
"""Headers and body of a page for people."""

Template: TypeAlias = tuple[int, Sequence[tuple[str, str]], bytes, Page | None]
"""An answer: status, headers, body; and the page in place of both for requests whose Accept prefers HTML."""

Limit: TypeAlias = tuple[object, object | None]
"""Capsules of `hopgate_limiter.Limiter`: by client, and by IPv6 network of 48 bits."""

Watch: TypeAlias = tuple[tuple[int, bool, float] | None, int | None, int]
"""
What is reported of single requests.

1. Spans; None: there are none. Traces whose low 64 bits are below this bound are recorded or, if the second
   is true, those that a trusted caller records; others if they take so many seconds, or fail.
2. The bound of the access log, likewise; None: there are no lines.
3. How many records wait at most. Lines of requests under way have more room, one for each connection.
"""

Origin: TypeAlias = tuple[int, int, float, str, str]
"""A recorded request: its trace, its span, when it began, and the tracestate and baggage of its caller."""

Record: TypeAlias = tuple[
    tuple[int, int, int, str],
    tuple[float, float, int],
    tuple[bool, bool, bool, bool, bool],
    tuple[str, str],
    tuple[str, str],
]
"""
A request that the front answered, in five parts. Times are those of `time.monotonic`, in seconds.

1. Its trace, its span, its parent (0: none), and the tracestate of that.
2. When it began, how long it took, and its status (0: the connection ended).
3. Whether it is recorded, has a late span, has a line, was a miss, has the route of links.
4. Its method, and the version of HTTP.
5. The address of the client or its IPv6 network, and the id that it gave the request.
"""

Rare: TypeAlias = tuple[
    str | None,
    str | None,
    str | None,
    tuple[float | None, float | None],
    tuple[str | None, str | None, str | None],
]
"""
What few links have.

`X-Robots-Tag`, and where visitors go once the link has no visit left, as they are sent; of an alias, the key
whose visits it spends; when it begins and when it expires, unix seconds; and its target, its page for the
time after it and its rules for crawlers, as far as they are not sent as they are.
"""

Row: TypeAlias = tuple[str, int, int, int, str | None, int, int, float, Rare | None]
"""
What is answered for a slug, by the template of a status; and the link.

Slug, version (0: there is no such link) and epoch; the status; the target of a redirect, or the page in place
of a refusal; the status of its redirects; marks; until when it is sent, as in `time.monotonic`; and what few
links have.

With status 0, nothing can be sent for this version of the link. The marks are a sum. 1: a query is added to
the target's, 2: likewise, in place of parameters of the same names; 4: it has a limit of its visits; 8: its
targets are long.
"""

ResolutionFields: TypeAlias = tuple[
    str,
    int,
    str | None,
    int,
    bool,
    float | None,
    float | None,
    bool,
    int,
    bool,
    str | None,
    str | None,
    str | None,
]
"""The fields of a link as caches hold it, in the order of Hopgate's `Resolution`."""

Words: TypeAlias = tuple[Sequence[str], Sequence[str]]
"""In lower case, what a `User-Agent` may hold, and what it may begin with."""

VisitKind: TypeAlias = tuple[str, str, str, str, str, str, str]
"""
What a visit looks like: the slug, the host in `Referer`, the first language of `Accept-Language`, the address
of the client or its IPv6 network, flags, the `utm_` parameters of its target and of its query, and
`User-Agent`. Of the flags, `o` objects to tracking, and `a` is a prefetch.
"""
