"""QR codes: an independent decoder reads what is drawn, in every style that is let through."""

from __future__ import annotations

import asyncio
import io
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from PIL import Image

from app.domain.errors import InvalidInput, Overloaded
from app.web import qr, qr_codes
from app.web.qr import Style
from tests.qr_reader import of_blocks, read, read_image

URL = "https://hop.example/abcdefg"
LONG = f"https://{'h' * 60}.example/some/path/{'s' * 128}"


def checked(**style: Any) -> Style:
    made = Style(**style)
    qr.check(made)
    return made


@pytest.mark.parametrize("text", [URL, LONG, "http://[::1]:8000/x", "https://a.b/Ab-_9"])
@pytest.mark.parametrize("level", qr.LEVELS)
def test_decoder_reads_the_short_url(text, level):
    assert read(qr.draw(text, "png", checked(error_correction=level))) == text


@pytest.mark.parametrize("size", [64, 100, 333, 512, 1000, 2048])
def test_image_has_the_size_that_is_asked_for(size):
    png = qr.draw(URL, "png", checked(size=size))

    assert Image.open(io.BytesIO(png)).size == (size, size)
    assert read(png) == URL
    assert f'width="{size}" height="{size}"'.encode() in qr.draw(URL, "svg", checked(size=size))


@pytest.mark.parametrize(
    "style",
    [
        {"color": "#1b3a5c", "background": "f4efe6"},
        {"color": "8a1c1c", "background": "#ffffffff"},
        {"background": "#ffffff00"},
        {"color": "#000000b0", "background": "#ffe08080"},
        {"margin": 0},
        {"margin": 16, "size": 300},
    ],
)
def test_decoder_reads_styles(style):
    assert read(qr.draw(URL, "png", checked(**style))) == URL


def test_png_has_both_colours_and_no_other():
    png = qr.draw(URL, "png", checked(color="#11223380", background="#fefefe10"))

    pixels = Image.open(io.BytesIO(png)).convert("RGBA").getcolors() or []
    colours = {colour for _, colour in pixels}
    assert colours == {(0x11, 0x22, 0x33, 0x80), (0xFE, 0xFE, 0xFE, 0x10)}


@pytest.mark.parametrize(
    ("style", "field", "code"),
    [
        ({"color": "777777", "background": "888888"}, "color", "color_contrast"),
        ({"color": "#a0a0a0"}, "color", "color_contrast"),
        ({"color": "#00000030"}, "color", "color_contrast"),
        ({"color": "ffffff", "background": "000000"}, "color", "color_inverted"),
        ({"color": "red"}, "color", "color_invalid"),
        ({"color": "#fff"}, "color", "color_invalid"),
        ({"background": "#12345"}, "background", "color_invalid"),
        ({"background": '#123456"/>'}, "background", "color_invalid"),
        ({"size": 63}, "size", "size_invalid"),
        ({"size": 2049}, "size", "size_invalid"),
        ({"margin": 17}, "margin", "margin_invalid"),
        ({"margin": -1}, "margin", "margin_invalid"),
        ({"error_correction": "m"}, "error_correction", "error_correction_unknown"),
    ],
)
def test_style_that_no_camera_reads_is_refused(style, field, code):
    with pytest.raises(InvalidInput) as refused:
        checked(**style)

    assert [(one.field, one.code) for one in refused.value.errors] == [(field, code)]


def test_size_below_a_pixel_for_each_module_is_refused():
    with pytest.raises(InvalidInput, match="size"):
        qr.draw(LONG, "png", checked(size=64))


def test_url_that_no_code_holds_is_refused():
    with pytest.raises(InvalidInput, match="short URL"):
        qr.draw("https://hop.example/" + "x" * 3000, "svg", checked())


def test_svg_is_well_formed_and_holds_shapes_alone():
    root = ET.fromstring(qr.draw(URL, "svg", checked(color="#00000080")))

    names = [element.tag.rpartition("}")[2] for element in root.iter()]
    assert names == ["svg", "path", "path"]
    assert {name for element in root.iter() for name in element.attrib} == {
        *("width", "height", "viewBox", "shape-rendering", "fill", "fill-opacity", "d"),
    }


@pytest.mark.parametrize("text", [URL, LONG])
def test_terminal_shows_a_code(text):
    assert read_image(of_blocks(qr.in_terminal(text))) == text


async def test_code_is_drawn_once_and_the_latest_are_kept():
    codes = qr_codes.QrCodes()
    first = await asyncio.gather(*(codes.image(URL, "png", Style()) for _ in range(10)))

    assert (codes.drawn, set(first)) == (1, {qr.draw(URL, "png", Style())})
    for number in range(qr_codes._MAX_KEPT):
        await codes.image(f"{URL}{number}", "svg", Style(error_correction="L"))
    assert not codes.has(URL, "png", Style())
    assert codes.has(f"{URL}{qr_codes._MAX_KEPT - 1}", "svg", Style(error_correction="L"))


async def test_no_more_than_some_wait():
    codes = qr_codes.QrCodes()
    asked = [codes.image(f"{URL}{number}", "svg", Style()) for number in range(qr_codes._MAX_WAITING + 5)]

    found = await asyncio.gather(*asked, return_exceptions=True)

    assert sum(isinstance(one, Overloaded) for one in found) == 5
    assert codes.drawn == qr_codes._MAX_WAITING
    assert await codes.image(f"{URL}x", "svg", Style())


@pytest.mark.parametrize(
    ("header", "held"),
    [
        (None, False),
        ("*", True),
        ('"x"', False),
        ("{}", True),
        ('W/{}, "x"', True),
        ('"x" , {}', True),
        ("", False),
    ],
)
def test_client_names_what_it_holds(header, held):
    tag = qr_codes.etag(URL, "svg", Style())

    assert qr_codes.is_held(tag, None if header is None else header.format(tag)) is held
    assert tag != qr_codes.etag(URL, "png", Style())
