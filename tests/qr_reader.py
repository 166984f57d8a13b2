"""Reads QR codes as a camera does, by a decoder that shares nothing with what draws them."""

from __future__ import annotations

import io

import zxingcpp
from PIL import Image


def read(png: bytes, *, ground: str = "white") -> str:
    """Return the text of the one code in *png*, which lies on paper of the colour *ground*."""
    return read_image(_on(Image.open(io.BytesIO(png)).convert("RGBA"), ground))


def read_image(image: Image.Image) -> str:
    """Return the text of the one code in *image*."""
    grey = image.convert("L")
    pixels = memoryview(grey.tobytes()).cast("B", (grey.height, grey.width))
    [found] = zxingcpp.read_barcodes(pixels)
    assert found.valid
    return str(found.text)


def _on(image: Image.Image, ground: str) -> Image.Image:
    paper = Image.new("RGBA", (image.width + 40, image.height + 40), ground)
    paper.alpha_composite(image, (20, 20))
    return paper


def of_blocks(text: str) -> Image.Image:
    """Return what a dark terminal shows of *text*, which is made of half blocks."""
    lines = text.split("\n")
    image = Image.new("L", (len(lines[0]) + 4, 2 * len(lines) + 4), 0)
    for y, line in enumerate(lines):
        for x, character in enumerate(line):
            assert character in " ▀▄█"
            for half, lit in enumerate((character in "▀█", character in "▄█")):
                image.putpixel((x + 2, 2 * y + half + 2), 255 * lit)
    return image.resize((image.width * 6, image.height * 6), Image.Resampling.NEAREST)
