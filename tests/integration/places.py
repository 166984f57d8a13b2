"""A file that tells which country an address is in, in the format of MaxMind."""

from __future__ import annotations

from pathlib import Path

from mmdb_writer import MMDBWriter
from netaddr import IPSet  # type: ignore[import-untyped]

# An address of each country.
ADDRESSES = {"AT": "192.0.2.71", "DE": "198.51.100.72", "MT": "203.0.113.7"}


def settings(folder: Path) -> dict[str, str]:
    """Write the file into *folder*; return what makes a gateway read it, and believe `X-Forwarded-For`."""
    writer = MMDBWriter(ip_version=6, ipv4_compatible=True)
    for code, address in ADDRESSES.items():
        writer.insert_network(IPSet([f"{address}/32"]), {"country": {"iso_code": code}})
    writer.to_db_file(str(folder / "places.mmdb"))
    return {"HOPGATE_GEO_FILE": str(folder / "places.mmdb"), "HOPGATE_TRUSTED_PROXIES": "127.0.0.1/32"}
