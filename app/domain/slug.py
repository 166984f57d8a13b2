"""Slugs: how they are generated, and which ones a user may choose."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from app.domain import scripts
from app.domain.errors import FieldError, InvalidInput
from app.domain.link import Slug

# Base 62 without 0 O 1 I l, which are confused when read aloud or copied by hand.
ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
GENERATED_LENGTH = 7  # 57^7 ≈ 2·10¹²: at 10⁹ links a scanner hits one guess in 2,000


@dataclass(frozen=True, slots=True)
class Lengths:
    """How many characters a chosen slug may have."""

    least: int
    most: int

    def __str__(self) -> str:
        return f"{self.least} to {self.most}"


@dataclass(frozen=True, slots=True)
class Kinds:
    """Which kinds of slugs there are beside the one of ASCII characters without a slash."""

    segments: bool = False
    unicode: bool = False


# What a key may choose. Short slugs are few, and are the operator's to give away.
ORDINARY = Lengths(3, 64)
# What any link may have: other shorteners number their links from 1, or let people choose long names.
MOVED = Lengths(1, 128)
MAX_LENGTH = MOVED.most
# As it is typed: a letter is four characters at most where its marks stand apart (NFD). Longer text is no
# slug, and is not read: to normalise many marks in a row takes the square of their number.
MAX_TYPED = 4 * MAX_LENGTH
PLAIN = Kinds()
ALL = Kinds(segments=True, unicode=True)
# In UTF-8, with the prefix of another domain: what a block may name.
MAX_BYTES = 240

_CHARACTER = "[A-Za-z0-9_-]"
_SHAPE = re.compile(rf"{_CHARACTER}{{{MOVED.least},{MOVED.most}}}\Z")
# Of any letters: what may be looked up is more than what may be chosen.
_WIDER = r"[A-Za-z0-9_-]|[^\x00-\xa0\u2028\u2029\u3000\ud800-\udfff]"
_SEGMENTS = re.compile(rf"(?:{_WIDER})+(?:/(?:{_WIDER})+)*\Z")
# What makes the same emoji another text, and a dot that lower case leaves of a Turkish letter.
_EMOJI_STYLE, _DOTTED = "\ufe0f", "i\u0307"
_MARKS = 3  # that may follow a letter

# What ends a sentence, a quotation, a bracket or a line, or cannot be seen. No slug has one of these.
_PASTED = (
    "/.,) "
    ";:!?'\"]}>*\\`|\t\n\r"
    # A quotation is closed by what opens one in another language.
    "…’‘”“»«›‹–—。、，；：！？）］】」』"
    "\u00a0\u00ad\u2009\u200b\u200c\u200e\u200f\u2028\u2029\u202f\u2060\u3000\ufeff"
)

# First path segments of the service: those of `app.web.routes`, and those that pages to come will have.
# Compared case-folded, so that no look-alike of a page can be claimed. A segment with a dot is no slug
# anyway, and stands here to make the list complete. `bulk` is what the API has, or will have, in the place
# of a slug: a link of that name could be visited, and not be changed.
RESERVED = frozenset(
    "api docs status console healthz readyz metrics robots.txt favicon.ico .well-known bulk".split()
)
# Below these the APIs of other shorteners have routes (see `app.web.dialects`): no first segments of several,
# as a route goes before a link. Alone they are slugs.
RESERVED_BELOW = frozenset(("rest", "v4"))
# What the API has, or will have, behind a slug: no last segment, as in `/api/v1/links/a/b/stats`.
RESERVED_LAST = frozenset(
    "stats history undo aliases alias rename owner owners transfer clicks visits qr preview rules".split()
)


def generate(choice: Callable[[str], str], length: int = GENERATED_LENGTH) -> Slug:
    """
    Return a random slug of *length* characters.

    Args:
        choice: picks one character of a string: `secrets.choice`, as slugs must not be guessable;
            a seeded one in tests.
    """
    return Slug("".join(choice(ALPHABET) for _ in range(length)))


def as_pasted(text: str) -> str:
    """Return *text* without what gets behind a slug when a sentence around its link is copied."""
    return text.rstrip(_PASTED)


def canonical(text: str, *, ignoring_case: bool = False) -> str:
    """Return the spelling of *text* that is stored, and compared; text too long for any slug as it is."""
    if len(text) > MAX_TYPED:
        return text
    if text.isascii():
        return text.lower() if ignoring_case else text
    name = unicodedata.normalize("NFC", text.replace(_EMOJI_STYLE, ""))
    if not ignoring_case:
        return name
    return unicodedata.normalize("NFC", name.casefold()).replace(_DOTTED, "i")


def is_well_formed(text: str, kinds: Kinds = PLAIN) -> bool:
    """Could *text*, in canonical form, be a slug of one of *kinds* at all? Reserved words pass alone."""
    return _SHAPE.match(text) is not None or (_is_wide(text, kinds) and not is_page(text))


def _is_wide(text: str, kinds: Kinds) -> bool:
    if len(text) > MAX_LENGTH or _SEGMENTS.match(text) is None or (not kinds.segments and "/" in text):
        return False
    return text.isascii() or (kinds.unicode and len(text.encode()) <= MAX_BYTES)


def is_page(text: str) -> bool:
    """Is *text* the path of a page of the service, or below one?"""
    return text.partition("/")[0].casefold() in RESERVED


def parse(text: str, lengths: Lengths = ORDINARY, kinds: Kinds = PLAIN) -> Slug:
    """
    Return *text*, in canonical form, as a slug that a link may get.

    Raises:
        InvalidInput: not *lengths* characters of `A-Z a-z 0-9 _ -`, of another kind, or reserved.
    """
    is_shaped = _SHAPE.match(text) is not None or _is_wide(text, kinds)
    if not is_shaped and is_well_formed(text, Kinds(segments=True, unicode=kinds.unicode)):
        raise _refused("slug_segments", "has several segments, and its domain has slugs of one alone")
    if not is_shaped or not lengths.least <= len(text) <= lengths.most:
        wider = f" ({MOVED} in an import, or with the scope admin)" if is_shaped else ""
        raise _refused("slug_malformed", f"must be {_described(lengths, kinds)}{wider}")
    if is_page(text):
        raise _refused("slug_reserved", "is reserved")
    wrong = None if text.isascii() else _problem(text)
    if wrong is not None:
        raise _refused("slug_unicode", wrong)
    first, _, last = text.rpartition("/")
    if first and text.partition("/")[0].casefold() in RESERVED_BELOW:
        raise _refused("slug_reserved", f"begins with {text.partition('/')[0]}/, which is reserved")
    if first and last.casefold() in RESERVED_LAST:
        raise _refused("slug_reserved", f"has a last segment that is reserved, {last}")
    return Slug(text)


def _described(lengths: Lengths, kinds: Kinds) -> str:
    segments = ", in segments parted by /" if kinds.segments else ""
    letters = f", letters and emoji, {MAX_BYTES} bytes at most" if kinds.unicode else ""
    return f"{lengths} characters of A-Z a-z 0-9 _ -{letters}{segments}"


def _problem(text: str) -> str | None:
    marks = _MARKS + 1
    for segment in text.split("/"):
        row = marks  # none may begin a segment
        for character in segment:
            row = row + 1 if unicodedata.category(character)[0] == "M" else 0
            if row >= marks:
                return "has too many marks in a row, or one that is first"
    return scripts.problem(text)


def _refused(code: str, message: str) -> InvalidInput:
    return InvalidInput([FieldError("slug", code, message)])
