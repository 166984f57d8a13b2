"""The dates of certificates, from any bytes."""

from __future__ import annotations

import base64
import signal
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import SettingsError
from app.web.certificates import Certificates
from app.web.fronted import Fronted
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


def test_sighup_during_the_start_is_made_up_for(tmp_path):
    """The files are read before there is a handler: they are read again after."""
    files = Certificates(tmp_path / "chain.pem", tmp_path / "key.pem")
    files.chain.write_bytes(b"old")
    files.key.write_bytes(b"key")
    used: list[bytes] = []
    front: Any = SimpleNamespace(secure=lambda chain, _key: used.append(chain))
    services = SimpleNamespace(front=front, tracing=None, redirects=None, pages=None)

    class Loop:
        def add_signal_handler(self, number: int, *_: object) -> None:
            if number == signal.SIGHUP:
                files.chain.write_bytes(b"renewed")

        def call_soon(self, *_: object) -> None:
            """The front does not start."""

    application = SimpleNamespace(__rsgi_init__=lambda _loop: files.secure(front))
    inner: Any = SimpleNamespace(services=services, failed=None)

    loop: Any = Loop()
    Fronted(application, inner, [], certificates=files).__rsgi_init__(loop)

    assert used == [b"old", b"renewed"]
