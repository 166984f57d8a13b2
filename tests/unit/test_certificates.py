"""The dates of certificates, from any bytes."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import SettingsError
from app.web.certificates import Certificates
from tests.servers.certificates import Authority


@pytest.fixture(scope="module")
def pem(tmp_path_factory) -> bytes:
    return Authority(tmp_path_factory.mktemp("ca")).certificate(days=30).read_bytes()


@given(st.lists(st.tuples(st.integers(0, 1000), st.binary(max_size=3)), min_size=1, max_size=4))
def test_changed_certificate_has_dates_or_none(tmp_path_factory, pem, changes):
    der = bytearray(base64.b64decode(b"".join(pem.split(b"\n")[1:-2])))
    for at, put in changes:
        der[at % len(der) : at % len(der) + len(put)] = put
    path: Path = tmp_path_factory.getbasetemp() / "changed.pem"
    path.write_bytes(
        b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(bytes(der)) + b"-----END CERTIFICATE-----\n"
    )

    try:
        start, until = Certificates(path, path).valid()
    except SettingsError:
        return

    assert isinstance(start, datetime)
    assert until.tzinfo is UTC
