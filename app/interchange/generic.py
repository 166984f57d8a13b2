"""A table or JSON of no known shortener whose columns have their usual names."""

from __future__ import annotations

import dataclasses

from app.interchange import values
from app.interchange.dialect import Dialect, columns
from app.interchange.errors import Unreadable
from app.interchange.inert import looks_guarded
from app.interchange.rivals import USUAL, UTM

_MOMENT = values.moment(unix="either")


# What programs quote cells with other than quotation marks.
_OTHER_QUOTES = ("'", "`")


def _refuse_guess(cell: str) -> str:
    """Refuse what is a text, or else one that a program has quoted or made harmless as a formula."""
    if cell.startswith(_OTHER_QUOTES) and len(cell) > 1 and cell[0] == cell[-1]:
        message = f"stands between {cell[0]} and {cell[0]}: name the format `csv` if they belong to the text"
        raise Unreadable("quote_unclear", message)
    if looks_guarded(cell):
        message = (
            f"begins with {cell[0]} and {cell[1]}: name the format, `csv` if the cell is meant so,"
            " `hopgate` if it is a guard against formulas"
        )
        raise Unreadable("guard_unclear", message)
    return cell


GENERIC = Dialect(
    name="csv",
    signatures=(),
    columns=columns(
        {
            **USUAL,
            "tags": values.tags(",|;"),
            "valid_from": _MOMENT,
            "expires_at": values.end(unix="either"),
            "created_at": _MOMENT,
            "aliases": values.json_aliases,
            "spent_visits": values.number,
            "owner": values.text,
        },
        slug="slug customSlug shortCode shortId code keyword alias key slashtag",
        short_link="shortUrl shortLink bitlink",
        path="path back-half",
        long_url="longUrl longLink url target targetUrl destination destinationUrl originalUrl",
        domain="domain",
        aliases="aliases",
        title="title",
        tags="tags",
        redirect_code="redirect_code",
        valid_from="valid_from validSince",
        expires_at="expires_at expires expiry expiryDate expiryTime expiration expirationDate validUntil",
        max_visits="max_visits maxClicks clickLimit clicksLimit",
        forward_query="forward_query",
        enabled="enabled",
        external_id="external_id",
        expired_url="expired_url",
        robots="robots",
        analytics="analytics",
        created_at="created_at created dateCreated creationDate",
        visits="visits visitCount totalClicks clicks clickCount hits",
        spent_visits="spent_visits",
        override_query="override_query",
        owner="owner",
        **UTM,
    ),
    slug_is_optional=True,
    cell=_refuse_guess,
)

# The same when the operator has named it: cells are what they are.
GENERIC_BY_NAME = dataclasses.replace(GENERIC, cell=str)
