"""Schemes of targets: which ones an operator may allow beside those of the web."""

from __future__ import annotations

import re
from collections.abc import Iterable

_SHAPE = re.compile(r"[a-z][a-z0-9+.-]{0,63}\Z")
# Their URLs run code, read files, show pages of the browser itself, or start programs with arguments.
_DANGEROUS = frozenset(
    "javascript livescript mocha jscript vbscript vbs data blob file filesystem about view-source jar wyciwyg"
    " feed pcast content intent res resource shell hcp mk cid mid search search-ms"
    " ldap ldaps jnlp jnlps applescript mhtml its".split()
)
# And the families of these.
_DANGEROUS_PREFIXES = (
    *(
        "x-javascript",
        "chrome",
        "moz-",
        "safari-",
        "webkit-",
        "edge",
        "opera",
        "brave",
        "vivaldi",
        "devtools",
    ),
    *("ms-", "microsoft-", "data-", "web+javascript"),
)


def parsed(names: Iterable[str]) -> tuple[str, ...]:
    """
    Return the schemes *names* in lower case, each once.

    Raises:
        ValueError: naming the first that is no scheme, or that no link may have.
    """
    found: dict[str, None] = {}
    for name in filter(None, names):
        scheme = name.lower()
        if not _SHAPE.match(scheme):
            msg = f"{name!r} is no scheme: write names such as mailto, without a colon, and spaces between"
            raise ValueError(msg)
        if is_dangerous(scheme):
            msg = (
                f"{scheme} cannot be allowed: a target of this scheme could run code, or open what is private"
            )
            raise ValueError(msg)
        found[scheme] = None
    if not found:
        msg = "names no scheme; the default is http https"
        raise ValueError(msg)
    return tuple(found)


def is_dangerous(scheme: str) -> bool:
    """May no link ever have *scheme*, which is in lower case?"""
    return scheme in _DANGEROUS or scheme.startswith(_DANGEROUS_PREFIXES)
