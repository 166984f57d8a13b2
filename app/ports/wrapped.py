"""Wraps each method of a port as one table declares. Guards and timing are such tables."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar, cast

# Any method of any port; keys of a table are written `Store.get`, so that a type checker sees them.
Method = Callable[..., Coroutine[Any, Any, Any]]
Wrapper = Callable[[Method], Method]

Port = TypeVar("Port")


def unchanged(method: Method) -> Method:
    """Return *method* itself: the row of a method that needs no wrapping."""
    return method


def methods_of(port: type) -> Mapping[str, Method]:
    """Return the public methods of *port*, inherited ones included, by name."""
    members = inspect.getmembers(port, inspect.isfunction)
    return {name: method for name, method in members if not name.startswith("_")}


def wrapped(port: type, adapter: Port, table: Mapping[Method, Wrapper]) -> Port:
    """
    Return *adapter* with each method wrapped as *table* declares; it has the methods of *port* only.

    Calls cost what the wrapper costs: wrapping happens here, once.

    Raises:
        TypeError: *table* lacks a method of *port*, or has one that is not of *port*.
    """
    methods = methods_of(port)
    wrappers = {method.__name__: wrapper for method, wrapper in table.items()}
    if wrappers.keys() != methods.keys():
        missing, unknown = methods.keys() - wrappers.keys(), wrappers.keys() - methods.keys()
        message = f"the table for {port.__name__} lacks {sorted(missing)} and has unknown {sorted(unknown)}"
        raise TypeError(message)
    result = _Wrapped()
    for name, wrapper in wrappers.items():
        setattr(result, name, wrapper(getattr(adapter, name)))
    return cast("Port", result)


class _Wrapped:
    """Holds the wrapped methods as attributes."""
