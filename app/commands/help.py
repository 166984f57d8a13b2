"""The help of commands, in the form of manual pages: arguments as NAME, no type beside a flag."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

# The command that runs, such as `links create`.
_running: ContextVar[str] = ContextVar("running")


class _Command(TyperCommand):
    """A command whose usage line has NAME, and [NAME] for an argument that may be left out."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        names, context = [], ctx
        while context.parent is not None:
            names.append(context.info_name)
            context = context.parent
        _running.set(" ".join(reversed(names)))
        return super().invoke(ctx)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the parts of the usage line."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters."""
        return _without_flag_types(super().get_params(ctx))


class _Group(TyperGroup):
    """A group of commands."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters."""
        return _without_flag_types(super().get_params(ctx))


class Group(typer.Typer):
    """Makes commands with this help."""

    def __init__(self, **options: Any) -> None:
        super().__init__(cls=_Group, no_args_is_help=True, **options)

    def command(self, name: str | None = None, **options: Any) -> Callable[[Any], Any]:
        """Declare a command, which works on the gateway of HOPGATE_URL if there is one."""
        declare = super().command(name, cls=_Command, **options)

        def declared(function: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(function)
            def run(**given: Any) -> Any:
                from app.commands import remote

                return remote.run(_running.get(), function, given)

            declare(run)
            return function

        return declared


def _without_flag_types(params: list[Any]) -> list[Any]:
    for param in params:
        if isinstance(param, TyperOption) and param.is_flag:
            param.metavar = ""
    return params
