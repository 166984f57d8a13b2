"""Commands for a gateway elsewhere: with HOPGATE_URL set, they use its API instead of the store."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from app.commands import console, key_text

if TYPE_CHECKING:
    from hopgate_client import HopgateError

    from app.settings import Settings

# The commands that can, and what each is elsewhere: a function that takes the client and the options.
_LINKS, _OTHERS = "app.commands.remote_links", "app.commands.remote_others"
COMMANDS: Mapping[str, tuple[str, str]] = {
    "links create": (_LINKS, "create"),
    "links get": (_LINKS, "get"),
    "links edit": (_LINKS, "edit"),
    "links delete": (_LINKS, "delete"),
    "links list": (_LINKS, "list_"),
    "links search": (_LINKS, "list_"),
    "links stats": (_LINKS, "stats"),
    "stats": (_OTHERS, "stats"),
    "links history": (_LINKS, "history"),
    "links undo": (_LINKS, "undo"),
    "links import": (_OTHERS, "import_"),
    "links export": (_OTHERS, "export"),
    "domains add": (_OTHERS, "add_domain"),
    "domains edit": (_OTHERS, "edit_domain"),
    "domains list": (_OTHERS, "list_domains"),
    "domains remove": (_OTHERS, "remove_domain"),
    "keys create": (_OTHERS, "create_key"),
    "keys list": (_OTHERS, "list_keys"),
    "keys revoke": (_OTHERS, "revoke_key"),
    "blocks add": (_OTHERS, "add_blocks"),
    "blocks remove": (_OTHERS, "remove_blocks"),
    "blocks list": (_OTHERS, "list_blocks"),
}
# They need no store; `top` reads the gateway that HOPGATE_URL names.
_ANYWHERE = {"keys generate", "top"}


def run(name: str, here: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    """Run the command *name*, which is *here* on this machine, where the settings say."""
    from app import settings as environment

    if name in _ANYWHERE:
        return here(**options)
    settings = environment.load()
    if settings.url is None:
        return here(**options)
    if name not in COMMANDS:
        console.fail(
            f"hopgate {name} works on its own machine alone: unset HOPGATE_URL, which is {settings.url}",
            names_store=False,
        )
    module, function = COMMANDS[name]
    return _elsewhere(settings, getattr(import_module(module), function), here, options)


def _elsewhere(
    settings: Settings, function: Callable[..., Any], here: Callable[..., Any], options: Mapping[str, Any]
) -> Any:
    from hopgate_client import Hopgate, HopgateError

    console.use_gateway(str(settings.url))
    key = key_text.read(settings)
    if key is None:
        console.fail("set HOPGATE_KEY or HOPGATE_KEY_FILE: a key of that gateway")
    taken = _taken(function, here, options)
    try:
        with Hopgate(str(settings.url), key) as gateway:
            return function(gateway, **taken)
    except HopgateError as error:
        console.fail(explained(error))


def _taken(
    function: Callable[..., Any], here: Callable[..., Any], options: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return the options that *function* takes. Ends the command if another one was given."""
    parameters = inspect.signature(function).parameters
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
        return options
    defaults = {name: one.default for name, one in inspect.signature(here).parameters.items()}
    for name, value in options.items():
        if name not in parameters and name != "context" and value != defaults[name]:
            console.fail(f"--{name.replace('_', '-')} works on the gateway's own machine alone")
    return {name: value for name, value in options.items() if name in parameters}


def explained(error: HopgateError) -> str:
    """Return what went wrong, and whether something may have been done all the same."""
    from hopgate_client import AnswerError, Unauthorized

    text = str(error)
    if isinstance(error, Unauthorized):
        text = "HOPGATE_KEY is no key of that gateway, or no longer"
    elif isinstance(error, AnswerError) and not error.errors:
        text = text[:1].lower() + text[1:].rstrip(".")
    return text + doubt(error)


def doubt(error: HopgateError) -> str:
    """Return the end of a sentence about a call that may have been done although it failed."""
    return "; it may have been done all the same" if error.may_have_applied else ""
