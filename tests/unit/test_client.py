from __future__ import annotations

import json
from ipaddress import ip_network
from pathlib import Path

import pytest

from app.web.client import client_address, peer_address

# For every program that has to find the client, in any language.
ROWS = json.loads((Path(__file__).parents[1] / "data" / "client_addresses.json").read_text())["rows"]


@pytest.mark.parametrize(
    ("client", "address"),
    [("203.0.113.7:80", "203.0.113.7"), ("[2001:db8::1]:80", "2001:db8::1"), ("unix", ""), ("", "")],
)
def test_peer_address_is_split_from_port(client, address):
    assert peer_address(client) == address


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_client_address_is_that_of_the_table(row):
    trusted = tuple(map(ip_network, row["trusted"]))

    assert client_address(row["peer"], row["forwarded_for"], trusted) == row["client"]
