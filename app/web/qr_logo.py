"""
The operator's logo in the middle of QR codes: a PNG file, read by Pillow, which is imported only for it.

Codes with a logo have error correction H, by which a reader restores up to 30 percent of a code; the logo
covers six at most.
"""

from __future__ import annotations

import hashlib
import io
import logging
import struct
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from app.domain.errors import SettingsError

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)

# The one that leaves enough of a code.
LEVEL = "H"
# Each SVG has the image in it.
MAX_BYTES = 64 << 10
MIN_SIDE, MAX_SIDE = 16, 512
# Of the width of a code, margin apart.
_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Logo:
    """
    An image. Those with the same digest are equal.

    `png`: the pixels without what else the file said, such as where it was made. `image`: the same, RGBA.
    """

    digest: str
    png: bytes = field(compare=False, repr=False)
    image: Image = field(compare=False, repr=False)


def modules_of(code: int) -> int:
    """Return how many modules a logo takes in each direction, in the middle of *code* modules."""
    most = int(code * _SHARE)
    return most if most % 2 == code % 2 else most - 1


def load(path: Path) -> Logo:
    """
    Return the logo in the file *path*.

    Raises:
        SettingsError: it cannot be read, or is no PNG that can be used, or Pillow is not installed.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        image = _decoded(content)
    except ImportError:
        message = "needs Pillow, which is not installed: run `make logo`, or pip install 'hopgate[logo]'"
        raise SettingsError(f"HOPGATE_QR_LOGO: {message}") from None
    except OSError as error:
        reason = error.strerror or "cannot be read"
    except ValueError as error:
        reason = str(error)
    else:
        encoded = io.BytesIO()
        image.save(encoded, "PNG", optimize=True)
        png = encoded.getvalue()
        return Logo(hashlib.sha256(png).hexdigest(), png, image)
    raise SettingsError(f"HOPGATE_QR_LOGO: {path}: {reason}")


def of(path: Path | None) -> Logo | None:
    """Return the logo in the file *path*; none, and a line in the log, if the file broke since the start."""
    try:
        return load(path) if path is not None else None
    except SettingsError as error:
        log.error("QR codes have no logo: %s", error)  # noqa: TRY400 one line says it all
        return None


def _decoded(content: bytes) -> Image:
    from PIL import Image

    if len(content) > MAX_BYTES:
        raise ValueError(f"must have at most {MAX_BYTES >> 10} KiB")
    sides = range(MIN_SIDE, MAX_SIDE + 1)
    wanted = f"must be {MIN_SIDE} to {MAX_SIDE} pixels wide and high"
    try:
        # Pillow warns of what is refused here, or does not matter.
        with warnings.catch_warnings(action="ignore"):
            # This compares the checksums; load() does not, and each wants a file of its own.
            Image.open(io.BytesIO(content), formats=("PNG",)).verify()
            image = Image.open(io.BytesIO(content), formats=("PNG",))
            is_fitting = image.width in sides and image.height in sides
            pixels = image.convert("RGBA") if is_fitting else image
    except Image.DecompressionBombError:
        raise ValueError(wanted) from None
    # Pillow has no exception of its own for what is broken.
    except (OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, struct.error):
        raise ValueError("is no PNG file, or a broken one") from None
    if not is_fitting:
        raise ValueError(f"{wanted}, and is {image.width} by {image.height}")
    if image.mode.startswith("I"):
        # Pillow makes nearly all of them white.
        raise ValueError("must not have 16 bits for each grey")
    # What the file says beside its pixels.
    pixels.info.clear()
    return pixels


def fitted(logo: Logo, side: int) -> Image:
    """Return *logo* as large as it fits into a square of *side* pixels."""
    from PIL.Image import Resampling

    width, height = logo.image.size
    scale = side / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return logo.image.resize(size, Resampling.LANCZOS)
