"""
QR codes of short URLs, as SVG, PNG or text. segno finds the modules; they are drawn here.

A QR code is a square of modules, which are dark or light, with a margin of light ones around it.
"""

from __future__ import annotations

import base64
import io
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from app.domain.errors import FieldError, InvalidInput
from app.web import qr_logo
from app.web.qr_logo import Logo

Format = Literal["svg", "png"]
MEDIA_TYPES: dict[Format, str] = {"svg": "image/svg+xml", "png": "image/png"}
LEVELS = ("L", "M", "Q", "H")
MIN_SIZE, MAX_SIZE = 64, 2048
MAX_MARGIN = 16
COLOR = "^#?[0-9A-Fa-f]{6}([0-9A-Fa-f]{2})?$"
# Of the two luminances (WCAG 2): cameras need less than readers, and print is paler than a screen.
MIN_CONTRAST = 3.0

_COLOR = re.compile(r"#?([0-9A-Fa-f]{6})([0-9A-Fa-f]{2})?")
_WHITE = (255, 255, 255)
# Two modules in one character, by whether the upper and the lower one are light: terminals are dark.
_HALVES = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}
_TERMINAL_MARGIN = 2

_Rgb = tuple[int, int, int]


class Color(NamedTuple):
    """A colour and its opacity, 0 to 255 each."""

    rgb: _Rgb
    alpha: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """
    How a QR code looks.

    `size`: width and height in pixels; `margin` in modules. `color` and `background` as #rrggbb or
    #rrggbbaa, the # may be left out. `logo`: in the middle; it needs error correction H.
    """

    size: int = 512
    margin: int = 4
    color: str = "#000000"
    background: str = "#ffffff"
    error_correction: str = "M"
    logo: Logo | None = None


def public_style(logo: Logo | None, *, size: int = 512) -> Style:
    """Return how codes look that are drawn for everyone."""
    return Style(size=size) if logo is None else Style(size=size, error_correction=qr_logo.LEVEL, logo=logo)


def check(style: Style) -> None:
    """
    Check the values of *style*, and that a camera can tell its modules apart; on white, if it is transparent.

    Raises:
        InvalidInput: a value is none, or the contrast is too low, or the other way round.
    """
    errors = [
        FieldError(name, "color_invalid", "must be #rrggbb or #rrggbbaa")
        for name in ("color", "background")
        if _COLOR.fullmatch(getattr(style, name)) is None
    ]
    if not MIN_SIZE <= style.size <= MAX_SIZE:
        errors.append(FieldError("size", "size_invalid", f"must be {MIN_SIZE} to {MAX_SIZE}"))
    if not 0 <= style.margin <= MAX_MARGIN:
        errors.append(FieldError("margin", "margin_invalid", f"must be 0 to {MAX_MARGIN}"))
    if style.error_correction not in LEVELS:
        message = f"must be one of {', '.join(LEVELS)}"
        errors.append(FieldError("error_correction", "error_correction_unknown", message))
    elif style.logo is not None and style.error_correction != qr_logo.LEVEL:
        message = f"must be {qr_logo.LEVEL} with a logo, which covers a part of the code"
        errors.append(FieldError("error_correction", "error_correction_low", message))
    if errors:
        raise InvalidInput(errors)
    below = _over(color(style.background), _WHITE)
    above = _over(color(style.color), below)
    light, dark = _luminance(below) + 0.05, _luminance(above) + 0.05
    if dark > light:
        message = "must be darker than the background: many cameras read no inverted code"
        raise InvalidInput([FieldError("color", "color_inverted", message)])
    if light / dark < MIN_CONTRAST:
        message = f"has a contrast of {light / dark:.1f} to the background, the least is {MIN_CONTRAST:g}"
        raise InvalidInput([FieldError("color", "color_contrast", message)])


def color(text: str) -> Color:
    """Return the colour *text*, which is one (see `check`)."""
    match = _COLOR.fullmatch(text)
    if match is None:
        raise ValueError(text)
    red, green, blue = bytes.fromhex(match[1])
    return Color((red, green, blue), int(match[2] or "ff", 16))


def draw(text: str, wanted: Format, style: Style) -> bytes:
    """
    Return the QR code of *text* in *style*, which was checked. Takes milliseconds of a processor.

    Raises:
        InvalidInput: *text* is too long, or the size too small for a pixel each.
    """
    rows = _modules(text, style.error_correction)
    side = len(rows) + 2 * style.margin
    if style.size < side:
        raise InvalidInput([FieldError("size", "size_small", f"must be {side} or more for this link")])
    if style.logo is not None:
        rows = _without_middle(rows)
    return _svg(rows, style) if wanted == "svg" else _png(rows, style)


def in_terminal(text: str, error_correction: str = "M") -> str:
    """Return the QR code of *text* in lines of blocks, light on the dark of a terminal."""
    margin = _TERMINAL_MARGIN
    rows = _modules(text, error_correction)
    blank = [True] * (len(rows) + 2 * margin)
    light = [
        *([blank] * margin),
        *([*[True] * margin, *(not dark for dark in row), *[True] * margin] for row in rows),
        *([blank] * margin),
    ]
    if len(light) % 2:
        light.append([False] * len(blank))
    pairs = zip(light[::2], light[1::2], strict=True)
    return "\n".join("".join(_HALVES[two] for two in zip(*pair, strict=True)) for pair in pairs)


def _modules(text: str, error_correction: str) -> Sequence[Sequence[int]]:
    # Most processes draw none.
    import segno

    try:
        return segno.make_qr(text, error=error_correction, boost_error=False).matrix
    except segno.DataOverflowError:
        message = f"leaves no room for the {len(text)} characters of the short URL"
        raise InvalidInput([FieldError("error_correction", "short_url_long", message)]) from None


def _without_middle(rows: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
    """Return *rows* without the modules that a logo covers."""
    hole = qr_logo.modules_of(len(rows))
    start = (len(rows) - hole) // 2
    kept = [list(row) for row in rows]
    for row in kept[start : start + hole]:
        row[start : start + hole] = [0] * hole
    return kept


def _svg(rows: Sequence[Sequence[int]], style: Style) -> bytes:
    side = len(rows) + 2 * style.margin
    above, below = color(style.color), color(style.background)
    path = "".join(
        f"M{style.margin + x} {style.margin + y}h{length}v1h-{length}z"
        for y, row in enumerate(rows)
        for x, length in _runs(row)
    )
    ground = f'<path {_fill(below)} d="M0 0h{side}v{side}H0z"/>' if below.alpha else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{style.size}" height="{style.size}"'
        f' viewBox="0 0 {side} {side}" shape-rendering="crispEdges">{ground}'
        f'<path {_fill(above)} d="{path}"/>{_image(len(rows), style)}</svg>'
    ).encode()


def _image(modules: int, style: Style) -> str:
    """Return the logo in a code of so many *modules*: half a module around it stays free."""
    if style.logo is None:
        return ""
    side = qr_logo.modules_of(modules) - 1
    at = style.margin + (modules - side) / 2
    data = base64.b64encode(style.logo.png).decode()
    return (
        f'<image x="{at:g}" y="{at:g}" width="{side}" height="{side}" href="data:image/png;base64,{data}"/>'
    )


def _runs(row: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Give the first module and the length of each run of dark ones."""
    start = 0
    while start < len(row):
        end = start
        while end < len(row) and row[end]:
            end += 1
        if end > start:
            yield start, end - start
        start = max(end, start + 1)


def _fill(one: Color) -> str:
    opacity = "" if one.alpha == 255 else f' fill-opacity="{one.alpha / 255:.3f}"'
    return f'fill="#{bytes(one.rgb).hex()}"{opacity}'


def _png(rows: Sequence[Sequence[int]], style: Style) -> bytes:
    """Return a PNG of two colours. Modules have whole pixels; the margin takes those that are left."""
    if style.logo is not None:
        return _png_with(style.logo, rows, style)
    size = style.size
    scale, before = _scaled(rows, style)
    width = (size + 7) // 8

    def line(bits: str) -> bytes:
        # Filter 0, then a bit for each pixel.
        return b"\0" + int(bits.ljust(width * 8, "0"), 2).to_bytes(width, "big")

    blank = line("0")
    lines = [blank] * before
    for row in rows:
        lines += [line("0" * before + "".join("1" * scale if dark else "0" * scale for dark in row))] * scale
    lines += [blank] * (size - len(lines))
    below, above = color(style.background), color(style.color)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 1, 3, 0, 0, 0)),
            _chunk(b"PLTE", bytes((*below.rgb, *above.rgb))),
            _chunk(b"tRNS", bytes((below.alpha, above.alpha))),
            _chunk(b"IDAT", zlib.compress(b"".join(lines))),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _scaled(rows: Sequence[Sequence[int]], style: Style) -> tuple[int, int]:
    """Return the pixels of a module, and those before the first one."""
    scale = style.size // (len(rows) + 2 * style.margin)
    return scale, (style.size - scale * len(rows)) // 2


def _png_with(logo: Logo, rows: Sequence[Sequence[int]], style: Style) -> bytes:
    """Return a PNG with the colours of *logo*, which may be any."""
    from PIL import Image

    count = len(rows)
    scale, before = _scaled(rows, style)
    below, above = color(style.background), color(style.color)
    dark = Image.frombytes("L", (count, count), bytes(255 * module for row in rows for module in row))
    dark = dark.resize((scale * count, scale * count), Image.Resampling.NEAREST)
    image = Image.new("RGBA", (style.size, style.size), (*below.rgb, below.alpha))
    image.paste((*above.rgb, above.alpha), (before, before), dark)
    # Half a module around it stays free.
    shown = qr_logo.fitted(logo, scale * (qr_logo.modules_of(count) - 1))
    middle = before + scale * count // 2
    image.alpha_composite(shown, (middle - shown.width // 2, middle - shown.height // 2))
    file = io.BytesIO()
    # Runs are most of what there is to compress.
    image.save(file, "PNG", compress_type=zlib.Z_RLE)
    return file.getvalue()


def _over(one: Color, ground: _Rgb) -> _Rgb:
    """Return what *one* looks like on *ground*."""
    share = one.alpha / 255
    red, green, blue = (
        round(share * above + (1 - share) * below) for above, below in zip(one.rgb, ground, strict=True)
    )
    return red, green, blue


def _luminance(rgb: _Rgb) -> float:
    red, green, blue = (
        value / 255 / 12.92 if value <= 10 else ((value / 255 + 0.055) / 1.055) ** 2.4 for value in rgb
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
