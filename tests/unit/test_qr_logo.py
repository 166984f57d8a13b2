"""The logo of QR codes: which files are taken, and that codes with it are read."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from app.domain.errors import InvalidInput, SettingsError
from app.web import qr, qr_logo
from app.web.qr_logo import Logo
from tests.qr_reader import read

URL = "https://hop.example/abcdefg"
LONG = f"https://{'h' * 60}.example/some/path/{'s' * 128}"
RED = (200, 30, 60, 255)
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def picture(width: int = 120, height: int = 80) -> Image.Image:
    """Return a disc with smooth colours and half a window, on nothing."""
    image = Image.linear_gradient("L").resize((width, height)).convert("RGBA")
    image.putalpha(0)
    draw = ImageDraw.Draw(image)
    draw.ellipse((2, 2, width - 3, height - 3), fill=RED)
    draw.rectangle((width // 3, height // 3, width // 2, height // 2), fill=(255, 255, 255, 128))
    return image


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def jpeg() -> bytes:
    file = io.BytesIO()
    picture().convert("RGB").save(file, "JPEG")
    return file.getvalue()


def loaded(folder: Path, content: bytes) -> Logo:
    (folder / "logo.png").write_bytes(content)
    return qr_logo.load(folder / "logo.png")


@pytest.fixture
def logo(tmp_path) -> Logo:
    return loaded(tmp_path, png(picture()))


@pytest.mark.parametrize("mode", ["RGBA", "RGB", "P", "L", "LA", "1"])
def test_pixels_are_those_of_the_file(tmp_path, mode):
    image = picture().convert(mode)

    logo = loaded(tmp_path, png(image))

    assert logo.image.tobytes() == image.convert("RGBA").tobytes()
    assert logo == loaded(tmp_path, png(image))


def test_file_with_16_bits_is_taken(tmp_path):
    line = b"\0" + bytes((200, 99, 30, 99, 60, 99)) * 20

    logo = loaded(tmp_path, built(20, 20, line * 20, depth=16))

    assert logo.image.getcolors() == [(400, RED)]


@pytest.mark.parametrize("text", [URL, LONG, "http://h.i/a"])
@pytest.mark.parametrize("size", [100, 200, 333, 512, 1024])
def test_decoder_reads_codes_with_a_logo(logo, text, size):
    assert read(qr.draw(text, "png", qr.public_style(logo, size=size))) == text


@pytest.mark.parametrize("fill", [(0, 0, 0, 255), (255, 255, 255, 255), (120, 120, 120, 255)])
def test_decoder_reads_codes_below_a_full_square(tmp_path, fill):
    square = loaded(tmp_path, png(Image.new("RGBA", (64, 64), fill)))

    for text in (URL, LONG):
        assert read(qr.draw(text, "png", qr.public_style(square))) == text


def test_logo_is_in_the_middle_on_the_background(logo):
    style = qr.Style(size=600, background="#fff8e7", error_correction="H", logo=logo)
    image = Image.open(io.BytesIO(qr.draw(URL, "png", style)))

    centre = image.getpixel((330, 300))
    # Above and below the logo, which is wider than high.
    beside = image.getpixel((300, 260))

    assert image.size == (600, 600)
    assert centre == RED
    assert beside == (0xFF, 0xF8, 0xE7, 255)
    colours = {colour for _, colour in image.getcolors(100_000) or []}
    assert {RED, (0, 0, 0, 255), (0xFF, 0xF8, 0xE7, 255)} < colours


def test_logo_on_a_transparent_background_stays_transparent(logo):
    style = qr.Style(size=600, background="#ffffff00", error_correction="H", logo=logo)
    image = Image.open(io.BytesIO(qr.draw(URL, "png", style)))

    assert image.getchannel("A").getpixel((300, 260)) == 0
    assert image.getpixel((330, 300)) == RED


def test_logo_covers_a_small_part_of_every_code():
    for version in range(1, 41):
        code = 17 + 4 * version
        hole = qr_logo.modules_of(code)
        assert 0 < hole**2 <= 0.0625 * code**2
        assert (code - hole) % 2 == 0


def test_svg_has_the_file_and_nothing_else_of_it(tmp_path):
    image = picture()
    told = PngInfo()
    told.add_text("Author", "secret")
    file = io.BytesIO()
    image.save(file, "PNG", dpi=(300, 300), exif=b"Exif\0\0secret place", icc_profile=b"secret", pnginfo=told)
    assert b"secret" in file.getvalue()

    logo = loaded(tmp_path, file.getvalue())

    assert {name for name, _ in parts_of(logo.png)} == {b"IHDR", b"IDAT", b"IEND"}
    assert Image.open(io.BytesIO(logo.png)).convert("RGBA").tobytes() == image.tobytes()
    root = ET.fromstring(qr.draw(URL, "svg", qr.public_style(logo)))
    [shown] = [one for one in root.iter() if one.tag.endswith("image")]
    assert shown.attrib["href"].startswith("data:image/png;base64,")
    assert float(shown.attrib["x"]) + float(shown.attrib["width"]) / 2 == (33 + 8) / 2


@pytest.mark.parametrize("level", ["L", "M", "Q"])
def test_lower_error_correction_is_refused(logo, level):
    with pytest.raises(InvalidInput) as refused:
        qr.check(qr.Style(error_correction=level, logo=logo))

    assert [(one.field, one.code) for one in refused.value.errors] == [
        ("error_correction", "error_correction_low")
    ]


def parts_of(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(SIGNATURE)
    while at < len(content):
        (length,) = struct.unpack_from(">I", content, at)
        yield content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        at += 12 + length


def broken(at: int) -> bytes:
    content = bytearray(png(picture()))
    content[at] ^= 1
    return bytes(content)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def built(width: int, height: int, lines: bytes, *, depth: int = 8, colour_type: int = 2) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return SIGNATURE + b"".join(chunk(*one) for one in chunks)


def with_text(size: int) -> bytes:
    """Return a file with *size* bytes of text, compressed."""
    told = PngInfo()
    told.add_text("Comment", "x" * size, zip=True)
    file = io.BytesIO()
    picture().save(file, "PNG", pnginfo=told)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is no PNG file"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is no PNG file"),
        (jpeg(), "is no PNG file"),
        (png(picture())[:-5], "or a broken one"),
        (png(picture())[:40], "or a broken one"),
        (SIGNATURE, "or a broken one"),
        (SIGNATURE + chunk(b"IEND", b""), "or a broken one"),
        (broken(20), "or a broken one"),
        (broken(60), "or a broken one"),
        (built(20, 20, bytes(500)), "or a broken one"),
        (with_text(20_000_000), "or a broken one"),
        (built(10_000, 10_000, b""), "must be 16 to 512 pixels wide and high, and is 10000 by 10000"),
        (built(60_000, 60_000, b""), "must be 16 to 512 pixels wide and high"),
        (png(picture(15, 40)), "must be 16 to 512 pixels wide and high, and is 15 by 40"),
        (png(picture(513, 40)), "must be 16 to 512 pixels wide and high"),
        (built(20, 20, bytes(41 * 20), depth=16, colour_type=0), "must not have 16 bits for each grey"),
        (bytes(70_000), "must have at most 64 KiB"),
    ],
)
def test_file_that_is_no_logo_is_refused_in_one_line(tmp_path, content, words):
    with pytest.raises(SettingsError) as refused:
        loaded(tmp_path, content)

    assert str(refused.value).startswith(f"HOPGATE_QR_LOGO: {tmp_path / 'logo.png'}: ")
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert qr_logo.of(tmp_path / "logo.png") is None


def test_every_damaged_file_is_refused_or_read(tmp_path):
    """No other exception: a checksum that is right does not make what is in a chunk right."""
    told = PngInfo()
    told.add_itxt("Comment", "text", zip=True)
    file = io.BytesIO()
    small = picture(16, 16).convert("P")
    # Two pictures in one file, and a profile: Pillow reads those as well.
    small.save(file, "PNG", save_all=True, append_images=[small.rotate(90)], pnginfo=told, icc_profile=b"x")
    parts = list(parts_of(file.getvalue()))
    read = 0
    for number, (name, data) in enumerate(parts):
        for changed in (b"", data[:1], data[:-1], data + b"x", bytes(len(data)), b"\xff" * len(data)):
            damaged = [*parts[:number], (name, changed), *parts[number + 1 :]]
            content = SIGNATURE + b"".join(chunk(*part) for part in damaged)
            with contextlib.suppress(SettingsError):
                read += loaded(tmp_path, content).image.size == (16, 16)
    assert read


def test_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"HOPGATE_QR_LOGO: .*none\.png: No such file"):
        qr_logo.load(tmp_path / "none.png")
    assert qr_logo.of(None) is None
