"""The application with its services, driven as granian would drive it, without a server."""

from __future__ import annotations


class Scope:
    scheme, query_string, client, authority = "http", "", "198.51.100.7:54321", "hop.example"

    def __init__(self, method: str, path: str) -> None:
        self.method, self.path = method, path
        self.headers = {}


class Protocol:
    """What is sent, and a request without a body."""

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
        self.services.entrance._admission.in_flight = int(in_flight)
