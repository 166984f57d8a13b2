"""Handlers that frameworks call with what their parameters ask for."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

_ADDED = "hopgate_request"


def with_request(
    handler: Callable[..., Any], request: type, names: frozenset[str] = frozenset(), added: str = _ADDED
) -> tuple[inspect.Signature, str, bool]:
    """
    Return a signature with a request, the name of that parameter, and whether the handler itself lacks it.

    Args:
        handler: a function of the application.
        request: the framework's class of requests, by which it finds the parameter.
        names: names by which it finds it, too.
        added: the name of the parameter if the handler has none.
    """
    signature = inspect.signature(handler)
    try:
        hints = get_type_hints(handler)
    except (NameError, TypeError):  # names that only a type checker knows
        hints = {}
    for name, parameter in signature.parameters.items():
        hint = hints.get(name, parameter.annotation)
        is_request = isinstance(hint, type) and issubclass(hint, request)
        if is_request or hint == request.__name__ or name in names:
            return signature, name, False
    parameters = list(signature.parameters.values())
    # Behind all others, except `**values`.
    end = len(parameters) - (bool(parameters) and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD)
    parameters.insert(end, inspect.Parameter(added, inspect.Parameter.KEYWORD_ONLY, annotation=request))
    return signature.replace(parameters=parameters), added, True
