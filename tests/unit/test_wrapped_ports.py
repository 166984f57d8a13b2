"""A table that wraps a port is complete, or it is refused."""

from __future__ import annotations

from typing import Protocol

import pytest

from app.ports.wrapped import Method, methods_of, unchanged, wrapped


class Reader(Protocol):
    async def read(self, name: str, *, limit: int = 1) -> str: ...


class Port(Reader, Protocol):
    async def ping(self) -> None: ...


class Adapter:
    async def read(self, name: str, *, limit: int = 1) -> str:
        return name * limit

    async def ping(self) -> None: ...


def loud(method: Method) -> Method:
    async def call(*args, **kwargs):
        return (await method(*args, **kwargs)).upper()

    return call


async def test_each_method_is_wrapped_by_its_row() -> None:
    port: Port = wrapped(Port, Adapter(), {Port.read: loud, Port.ping: unchanged})

    assert await port.read("a", limit=2) == "AA"
    await port.ping()


def test_inherited_methods_belong_to_the_port() -> None:
    assert methods_of(Port).keys() == {"read", "ping"}


def test_missing_row_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Port lacks \['ping'\]"):
        wrapped(Port, Adapter(), {Port.read: loud})


def test_row_of_another_port_is_refused() -> None:
    class Other(Protocol):
        async def write(self) -> None: ...

    with pytest.raises(TypeError, match=r"unknown \['write'\]"):
        wrapped(Reader, Adapter(), {Reader.read: loud, Other.write: unchanged})
