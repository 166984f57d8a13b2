"""`Places` in an MMDB file, such as those of MaxMind, DB-IP or IPinfo, by maxminddb."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from app.domain.errors import SettingsError
from app.domain.visits import UNKNOWN, Place

_MAX_KNOWN = 16_384
_NOWHERE = Place()


class NoPlaces:
    """Knows nothing: without a file, every place is unknown."""

    def place(self, client: str) -> Place:
        """Return the unknown place."""
        del client
        return _NOWHERE


class MmdbPlaces:
    """
    Looks addresses up in the file *path*, which is mapped into memory. Calls may come from any thread.

    Raises:
        SettingsError: it is no such file.
    """

    def __init__(self, path: Path) -> None:
        import maxminddb

        try:
            self._reader = maxminddb.open_database(path)
        except (OSError, ValueError, maxminddb.InvalidDatabaseError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else "is no MMDB file"
            raise SettingsError(f"HOPGATE_GEO_FILE: {path}: {reason}") from error
        self._wrong = (ValueError, maxminddb.InvalidDatabaseError)
        self.place = lru_cache(maxsize=_MAX_KNOWN)(self._place)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def _place(self, client: str) -> Place:
        try:
            found = self._reader.get(client.partition("/")[0])
        except self._wrong:
            return _NOWHERE
        if not isinstance(found, Mapping):
            return _NOWHERE
        country = _code(found)
        city = _english(found.get("city"))
        return Place(country, UNKNOWN if city is None else f"{city}, {country}")


def _code(found: Mapping[str, Any]) -> str:
    # MaxMind has a map there, others the code itself.
    country = found.get("country")
    code = country.get("iso_code") if isinstance(country, Mapping) else found.get("country_code", country)
    return code.upper() if isinstance(code, str) and len(code) == 2 and code.isalpha() else UNKNOWN


def _english(city: object) -> str | None:
    if isinstance(city, Mapping):
        names = city.get("names")
        city = names.get("en") if isinstance(names, Mapping) else None
    return city if isinstance(city, str) and city else None
