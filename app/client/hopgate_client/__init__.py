"""
A client of Hopgate, a URL shortener: `Hopgate`, and `AsyncHopgate`, which is the same and waits for nothing.

    with Hopgate("https://go.example", key) as hopgate:
        print(hopgate.links.create("https://example.com/").short_url)
"""

from hopgate_client.aio.client import AsyncHopgate
from hopgate_client.errors import (
    AnswerError,
    Blocked,
    Conflict,
    ConnectionFailed,
    DeadlineExceeded,
    FieldError,
    Forbidden,
    Gone,
    HopgateError,
    InvalidRequest,
    NotFound,
    PreconditionFailed,
    Problem,
    RateLimited,
    ServerFailed,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
)
from hopgate_client.models import (
    Block,
    BlocksAdded,
    Domain,
    HourlyClicks,
    ImportProgress,
    ImportReport,
    ImportSummary,
    Invalidated,
    ItemResult,
    Key,
    Link,
    LinkChange,
    LinkHistory,
    LinkPage,
    LinkStats,
    Me,
    NewKey,
    RefusedRow,
    Retagged,
    Tag,
)
from hopgate_client.retries import Retries
from hopgate_client.sync.client import Hopgate

__version__ = "0.1.0"

__all__ = [
    "AnswerError",
    "AsyncHopgate",
    "Block",
    "Blocked",
    "BlocksAdded",
    "Conflict",
    "ConnectionFailed",
    "DeadlineExceeded",
    "Domain",
    "FieldError",
    "Forbidden",
    "Gone",
    "Hopgate",
    "HopgateError",
    "HourlyClicks",
    "ImportProgress",
    "ImportReport",
    "ImportSummary",
    "InvalidRequest",
    "Invalidated",
    "ItemResult",
    "Key",
    "Link",
    "LinkChange",
    "LinkHistory",
    "LinkPage",
    "LinkStats",
    "Me",
    "NewKey",
    "NotFound",
    "PreconditionFailed",
    "Problem",
    "RateLimited",
    "RefusedRow",
    "Retagged",
    "Retries",
    "ServerFailed",
    "Tag",
    "Unauthorized",
    "Unavailable",
    "UnexpectedAnswer",
]
