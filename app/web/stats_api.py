"""`/api/v1/stats` and those of a link: how often there were visits, and what they looked like."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

from app.concurrency.actors import reach
from app.domain.errors import FieldError, InvalidInput
from app.resilience.admission import WorkKind
from app.resilience.deadline import ADMIN_S
from app.service.domains import Domains
from app.service.keys import Scope
from app.service.series import Interval
from app.service.stats import MAX_TOP, TOP, Extras, HourlyStats, Stats, reaches_total, total
from app.web import errors, schemas
from app.web.accept import wants_csv
from app.web.endpoint import Operation, Parameter
from app.web.find_links import HOST_OF_DOMAIN, ONE_TAG
from app.web.links_api import DOMAIN, key_in_path, outcome_response
from app.web.middleware import ApiMiddleware, Call
from app.web.parameters import FLAG, TIME, Kind, QueryReader, WrongValue, choice, member, number, one
from app.web.request import Request
from app.web.response import SECURITY_HEADERS, Response, json_response
from app.web.robyn_app import Router
from app.web.stats_csv import stats_csv
from app.web.stats_schemas import LinkStats, OverallStats, overall_document, stats_document

_CSV = "text/csv"
_VARY = ("vary", "accept")
SINCE = Parameter(
    "since",
    "query",
    schemas.TIME,
    description="The hour of this time is the first. Default: 24 hours before `until`.",
)
UNTIL = Parameter(
    "until",
    "query",
    schemas.TIME,
    description="The first hour that begins then or later is left out. At most 31 days of whole hours."
    " Default: the end of the present hour.",
)
WIDE_UNTIL = Parameter(
    "until",
    "query",
    schemas.TIME,
    description="The first hour that begins then or later is left out. At most 366 days of whole hours."
    " Default: the end of the present hour.",
)


def read_zone(text: str) -> tzinfo:
    """Return the time zone that *text* names. Raises WrongValue."""
    try:
        return ZoneInfo(text)
    except (KeyError, ValueError, OSError):
        # No such file, one outside of the folder, or a folder.
        raise WrongValue("time_zone_unknown", "must be an IANA time zone, as in Europe/Vienna") from None


INTERVAL = one(
    "interval",
    member(Interval, "interval_unknown"),
    "Also return `series`: the visits of each hour, at most 31 days of them, or day.",
)
TIME_ZONE = one(
    "time_zone",
    Kind({"type": "string", "examples": ["Europe/Vienna"]}, read_zone),
    "The IANA time zone that days of `series` begin in. Default: UTC. Needs `interval`. An hour of UTC counts"
    " for the day in which it begins.",
)
OF_DOMAIN = one(
    "domain",
    HOST_OF_DOMAIN,
    "Only of the links of this domain: also for keys that are restricted to domains, of which it is one.",
)
OF_TAG = one(
    "tag",
    ONE_TAG,
    "Only of visits of links that had this tag when they were visited. It and `domain` exclude each other.",
)
COMPARE = one("compare", FLAG, "Also return `before`: the period of the same length before `since`.")

MOST = one(
    "top",
    number(1, MAX_TOP, "top_invalid", TOP),
    "How many values of each field are named, those with the most visits. The empty value has all others.",
)
FORMAT = one(
    "format",
    choice(("json", "csv"), "format_unknown"),
    "JSON, or CSV for spreadsheets: a line for each number, in the columns section, start, value and visits."
    " Default: what `Accept` prefers, else JSON.",
)


def register(api: Router, middleware: ApiMiddleware, stats: Stats, domains: Domains) -> None:
    """Declare the endpoints of statistics on *api*, the router of `/api/v1`."""

    @api.get("/links/:slug/stats")
    @middleware.endpoint(
        Operation(
            summary="Read how often a link was visited, by the hour, and what its visits looked like",
            scope=Scope.STATS_READ,
            work=WorkKind.LIST,
            deadline_s=ADMIN_S,
            success=(200, LinkStats),
            problems=(404, 410, 422),
            parameters=(DOMAIN, SINCE, UNTIL, INTERVAL, TIME_ZONE, COMPARE, MOST, FORMAT),
            gives_too=(_CSV,),
        )
    )
    async def get_link_stats(call: Call[None]) -> Response:
        request = call.request
        name, since, until = (
            await key_in_path(request, domains),
            _time(request, "since"),
            _time(request, "until"),
        )
        extras = _extras(request)
        outcome = await stats.hourly(name, since=since, until=until, extras=extras) if name else None
        if isinstance(outcome, HourlyStats):
            return _answer(request, stats_document(outcome, domains.index))
        return outcome_response(outcome, domains.index, call.principal)

    @api.get("/stats")
    @middleware.endpoint(
        Operation(
            summary="Read what the visits of all links looked like, or of those of a domain or with a tag",
            scope=Scope.LINKS_READ,
            work=WorkKind.LIST,
            deadline_s=ADMIN_S,
            success=(200, OverallStats),
            problems=(422,),
            parameters=(OF_DOMAIN, OF_TAG, SINCE, WIDE_UNTIL, INTERVAL, TIME_ZONE, COMPARE, MOST, FORMAT),
            gives_too=(_CSV,),
        )
    )
    async def get_stats(call: Call[None]) -> Response:
        reader = QueryReader(call.request)
        host, tag = reader.one(OF_DOMAIN), reader.one(OF_TAG)
        reader.check()
        domain = None if host is None else await domains.named(host)
        if domain is not None and reach().owner is None:
            reach().check_domain(domain)
        if not reaches_total(domain):
            return errors.restricted()
        of = total(domains.index, domain, tag)
        since, until = _time(call.request, "since"), _time(call.request, "until")
        overall = await stats.overall(of, since=since, until=until, extras=_extras(call.request))
        return _answer(call.request, overall_document(overall))


def _answer(request: Request, found: LinkStats | OverallStats) -> Response:
    if not _is_csv(request):
        return json_response(200, found, [_VARY])
    headers = [
        ("content-type", f"{_CSV}; charset=utf-8"),
        ("content-disposition", 'attachment; filename="stats.csv"'),
        *SECURITY_HEADERS,
        _VARY,
    ]
    return Response(200, headers, stats_csv(found).encode())


def _is_csv(request: Request) -> bool:
    named = QueryReader(request).one(FORMAT)
    return wants_csv(request.lines("accept")) if named is None else named == "csv"


def _extras(request: Request) -> Extras:
    reader = QueryReader(request)
    reader.one(FORMAT)
    interval, zone = reader.one(INTERVAL), reader.one(TIME_ZONE)
    compares, top = reader.one(COMPARE) or False, reader.one(MOST) or TOP
    if zone is not None and interval is None and not reader.errors:
        reader.errors.append(FieldError("time_zone", "time_zone_without_interval", "needs interval"))
    reader.check()
    return Extras(interval, UTC if zone is None else zone, compares, top)


def _time(request: Request, name: str) -> datetime | None:
    text = request.query.get(name)
    if text is None:
        return None
    try:
        return TIME.read(text)
    except WrongValue as error:
        raise InvalidInput([FieldError(name, error.code, error.message)]) from None
