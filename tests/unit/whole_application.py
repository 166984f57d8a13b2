"""The application with its services, driven as granian drives it, without a server."""

from __future__ import annotations


class Headers(dict):
    """As granian has them: lists of values by lower-case name."""

    def get(self, name, default=None):
        return self.get_all(name)[0] if name in self else default

    def get_all(self, name):
        return super().get(name, [])


class Scope:
    query_string, client, http_version = "", "198.51.100.7:54321", "1.1"
    authority = None

    def __init__(self, method: str, path: str) -> None:
        self.method, self.path = method, path
        self.headers = Headers(host=["hop.example"])


class Protocol:
    """Records the response; the request has no body."""

    async def __aiter__(self):
        return
        yield

    def response_empty(self, status, headers):
        self.status, self.headers, self.body = status, dict(headers), b""

    def response_bytes(self, status, headers, body):
        self.status, self.headers, self.body = status, dict(headers), body


class Application:
    def __init__(self, services, rsgi):
        self.services = services
        self._rsgi = rsgi

    async def ask(self, path: str, method: str = "GET", *, client: str = Scope.client) -> Protocol:
        protocol, scope = Protocol(), Scope(method, path)
        scope.client = client
        await self._rsgi.__rsgi__(scope, protocol)
        return protocol

    async def status(self, path: str, method: str = "GET", *, client: str = Scope.client) -> int:
        return (await self.ask(path, method, client=client)).status

    def press(self, in_flight: float) -> None:
        self.services.admission.in_flight = int(in_flight)
