"""Connections to the gateway on this machine, as it lets clients connect."""

from __future__ import annotations

import http.client
import ssl
from typing import Any

from app.settings import Settings

# Names no client: the connection is the sender's own.
_UNNAMED = b"PROXY UNKNOWN\r\n"


class LocalConnection(http.client.HTTPConnection):
    """
    A connection to a gateway that may want TLS, the PROXY protocol, or both.

    Its certificate is not verified: it is for the gateway's public name, and the other end is this machine.
    Send nothing secret.
    """

    def __init__(self, settings: Settings, timeout: float) -> None:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
        super().__init__(host, settings.port, timeout=timeout)
        self._is_named = settings.proxy_protocol == "on"
        self._is_secured = settings.tls_cert is not None
        self.sock: Any

    def connect(self) -> None:
        """Connect, and do what comes before the first request."""
        super().connect()
        if self._is_named:
            self.sock.sendall(_UNNAMED)
        if self._is_secured:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            self.sock = context.wrap_socket(self.sock)
