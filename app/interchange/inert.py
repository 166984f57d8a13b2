"""
Text from a file made harmless for the two places that execute text: terminals and spreadsheets.

A terminal obeys control characters (CWE-150); a spreadsheet evaluates a cell that begins like a
formula (CWE-1236).
"""

from __future__ import annotations

import unicodedata

# Beginnings that a spreadsheet evaluates, or drops before it looks for a formula. The full-width
# forms are formulas to Japanese and Chinese editions.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_MARK = "'"
_GUARDED = (*_FORMULA, _MARK)
# What exports of version 0.1 guarded.
_FORMULA_0_1 = ("=", "+", "-", "@", "\t", "\r")


def terminal_safe(text: str, limit: int | None = None) -> str:
    r"""
    Return *text* with control, format and unassigned characters as escapes such as `\x1b`.

    That covers C0 and C1 controls, line separators, direction overrides, invisible characters
    and lone surrogates.

    Args:
        limit: the most characters of *text* to show; the rest becomes `…`.
    """
    cut = limit is not None and len(text) > limit
    shown = text[:limit] if cut else text
    if not (shown.isascii() and shown.isprintable()):
        shown = "".join(_escaped(character) for character in shown)
    return f"{shown}…" if cut else shown


def _escaped(character: str) -> str:
    category = unicodedata.category(character)
    if category[0] != "C" and category not in ("Zl", "Zp"):
        return character
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def json_safe(document: str, encoding: str = "utf-8") -> str:
    r"""
    Return JSON text with the same characters as its own escapes such as `\u202e`.

    The document stays the same: line ends, which lay it out, are left as they are.

    Args:
        encoding: what it lacks is escaped, too.
    """
    lacks_some = not can_encode(document, encoding)

    def shown(character: str) -> str:
        is_obeyed = character != "\n" and _escaped(character) != character
        is_lacking = lacks_some and not can_encode(character, encoding)
        return _json_escape(character) if is_obeyed or is_lacking else character

    return "".join(map(shown, document))


def can_encode(text: str, encoding: str) -> bool:
    """Does *encoding* have each character of *text*?"""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _json_escape(character: str) -> str:
    # Beyond the first plane, JSON writes a pair of surrogates.
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def guarded(text: str) -> str:
    """
    Return *text* as a cell that a spreadsheet shows instead of evaluating it.

    `unguarded` gives *text* back, whatever it is: a text that begins with the mark is marked, too.
    """
    return _MARK + text if text.startswith(_GUARDED) else text


def unguarded(cell: str) -> str:
    """Return the text that `guarded` made *cell* from; *cell* itself if it made no such cell."""
    return cell[1:] if cell.startswith(_MARK) and cell[1:].startswith(_GUARDED) else cell


def unguarded_0_1(cell: str) -> str:
    """Return the text of a cell of an export of version 0.1, which left a text's own mark as it was."""
    return cell[1:] if looks_guarded(cell) and cell[1:].startswith(_FORMULA_0_1) else cell


def looks_guarded(cell: str) -> bool:
    """Could *cell* be a formula that a program made harmless, rather than the text itself?"""
    return cell.startswith(_MARK) and cell[1:].startswith(_FORMULA)


def report_cell(text: str) -> str:
    """Return *text* for a report: harmless on a terminal and in a spreadsheet. Not reversible."""
    return guarded(terminal_safe(text))
