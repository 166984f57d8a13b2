"""
What a search compares: folded text, so that case and the spelling of a character play no part.

The stores index the same text: `app/migrations/postgres/0007.find.sql` folds in the database, SQLite gets
what this module returns. Both do the same steps, so they find the same links.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from app.domain.errors import FieldError, InvalidInput
from app.domain.rules import UNPRINTABLE

MAX_SEARCH_LENGTH, MAX_TERMS, MIN_TERM_LENGTH = 256, 8, 3


def folded(text: str) -> str:
    """
    Return *text* without differences of case and of composition.

    Fullwidth and other compatible forms are their plain ones, ẞ and ß are ss, every sigma is one, and İ is i.
    """
    plain = unicodedata.normalize("NFKC", text).lower().replace("i\u0307", "i")
    plain = plain.replace("ς", "σ").replace("ß", "ss")
    return unicodedata.normalize("NFKC", plain)


def searched_text(slug: str, title: str, long_url: str, tags: Sequence[str]) -> str:
    """Return the text of a link that terms are looked up in; no term holds a line break."""
    return folded("\n".join((slug, title, long_url, *tags)))


def terms_of(search: str) -> tuple[str, ...]:
    """
    Return the folded terms of *search*, which spaces part; a link has all of them.

    Raises:
        InvalidInput: there is none, one is too short, or they are too many; the field is `search`.
    """
    if len(search) > MAX_SEARCH_LENGTH:
        raise _invalid("search_too_long", f"is {len(search)} characters, the most is {MAX_SEARCH_LENGTH}")
    if (wrong := UNPRINTABLE.search(search)) is not None:
        raise _invalid("search_invalid", f"has the control character U+{ord(wrong[0]):04X}")
    terms = tuple(dict.fromkeys(folded(term) for term in search.split()))
    if not terms:
        raise _invalid("search_empty", "must name a term")
    if len(terms) > MAX_TERMS:
        raise _invalid("search_too_many", f"has {len(terms)} terms, the most is {MAX_TERMS}")
    short = next((term for term in terms if len(term) < MIN_TERM_LENGTH), None)
    if short is not None:
        message = f"has the term {short!r}: each needs {MIN_TERM_LENGTH} characters or more"
        raise _invalid("search_too_short", message)
    return terms


def _invalid(code: str, message: str) -> InvalidInput:
    return InvalidInput([FieldError("search", code, message)])
