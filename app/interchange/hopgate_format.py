"""
Hopgate's own format, CSV and JSON lines; and the CSV of version 0.1.

Its columns are those of `LinkFields`, by their types: a field that is added there is exported and
imported. `domain` is empty for links of the default one; `aliases` are further slugs, behind the host of
their domain and a slash unless it is the default one; `spent_visits` are the redirects that a limit of
visits has given out; `owner` is the id of an API key, which plays no part where there is no such key.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from app.domain import utm
from app.domain.link import LinkFields
from app.interchange import values
from app.interchange.columns import Column, normalised
from app.interchange.dialect import Dialect, names
from app.interchange.inert import unguarded, unguarded_0_1
from app.interchange.values import Converter


@dataclass(frozen=True, slots=True)
class Codec:
    """How a value of one type is a CSV cell. `write` gets no None: that is the empty cell."""

    write: Callable[[Any], str]
    read: Converter


def _tags_cell(tags: tuple[str, ...]) -> str:
    return msgspec.json.encode(tags).decode() if tags else ""


_TIME = Codec(datetime.isoformat, values.moment())
_NUMBER = Codec(str, values.number)
_BY_TYPE: dict[object, Codec] = {
    str: Codec(str, values.text),
    tuple[str, ...]: Codec(_tags_cell, values.json_tags),
    str | None: Codec(str, values.text),
    int: _NUMBER,
    int | None: _NUMBER,
    bool: Codec(lambda flag: "true" if flag else "false", values.flag),
    datetime | None: _TIME,
}
_TYPES = typing.get_type_hints(LinkFields)

# In the order of the CSV. UTM parameters are those of `long_url` once more, for readers of the file.
CODECS: dict[str, Codec] = {
    "slug": Codec(str, values.slug),
    "domain": Codec(str, values.text),
    "aliases": Codec(_tags_cell, values.json_aliases),
    **{field.name: _BY_TYPE[_TYPES[field.name]] for field in dataclasses.fields(LinkFields)},
    **{name: Codec(str, values.text) for name in utm.NAMES},
    "created_at": _TIME,
    "visits": _NUMBER,
    "spent_visits": _NUMBER,
    "owner": Codec(str, values.text),
}

_COLUMNS = {normalised(name): Column(name, codec.read) for name, codec in CODECS.items()}

HOPGATE = Dialect(
    name="hopgate",
    # No other format has the last one.
    signatures=(names("slug long_url created_at visits spent_visits"),),
    # What version 0.1 exported, and the API answers.
    json_signatures=(names("slug long_url short_url version"),),
    columns=_COLUMNS,
    harmless=names("short_url version updated_at"),
    cell=unguarded,
    has_domains=True,
)

_COLUMNS_0_1 = names(
    """slug long_url title tags redirect_code valid_from expires_at max_visits forward_query enabled"""
)
_TIME_0_1 = values.moment(unix="s")

HOPGATE_0_1 = Dialect(
    name="hopgate-0.1",
    signatures=(_COLUMNS_0_1,),
    # A newer export that lost a column has tags as JSON.
    is_exact=True,
    columns={
        **{name: _COLUMNS[name] for name in _COLUMNS_0_1},
        "tags": Column("tags", values.tags_0_1),
        "validfrom": Column("valid_from", _TIME_0_1),
        "expiresat": Column("expires_at", _TIME_0_1),
    },
    slug_is_optional=True,
    cell=unguarded_0_1,
)
