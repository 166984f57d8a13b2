"""
Lists of hosts or slugs to block: one a line, or a hosts file, with comments.

A line that names nothing to block is refused with its number, and stops no other line.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from app.domain.blocks import Block, blocked_host
from app.domain.errors import InvalidInput

# Longer lines hold no host.
MAX_LINE_BYTES = 4096
_COMMENT = re.compile(r"(?:^|\s)#.*|^!.*")
# What the head of a hosts file names itself.
_OWN_NAMES = frozenset(
    "localhost localhost.localdomain local broadcasthost ip6-localhost ip6-loopback ip6-localnet"
    " ip6-mcastprefix ip6-allnodes ip6-allrouters ip6-allhosts 0.0.0.0".split()
)
# Where nearly every line of such a file leads; parsing an address takes as long as all the rest of a line.
_NOWHERE = frozenset({"0.0.0.0", "127.0.0.1", "::", "::1"})  # noqa: S104
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class RefusedLine:
    """A line, counted from 1, and why it is refused: the end of a sentence about it."""

    number: int
    problem: str


@dataclass(frozen=True, slots=True)
class ReadLine:
    """What a line names to block: several hosts in a hosts file, none in a comment."""

    number: int
    blocks: Sequence[Block]


def read_list(
    file: BinaryIO, read: Callable[[str], Block] = blocked_host
) -> Iterator[ReadLine | RefusedLine]:
    """
    Read *file* line by line.

    Args:
        read: makes a block of one name: `blocked_host` or `blocked_slug`.
    """
    for number, line in enumerate(_lines(file), start=1):
        if line is None:
            yield RefusedLine(number, f"is longer than {MAX_LINE_BYTES} bytes")
            continue
        try:
            text = (line.removeprefix(_BOM) if number == 1 else line).decode()
        except UnicodeDecodeError:
            yield RefusedLine(number, "is not UTF-8")
            continue
        try:
            yield ReadLine(number, _blocks(_COMMENT.sub("", text, count=1).split(), read))
        except InvalidInput as error:
            yield RefusedLine(number, "; ".join(one.message for one in error.errors))
        except ValueError as error:
            yield RefusedLine(number, str(error))


def _blocks(words: Sequence[str], read: Callable[[str], Block]) -> Sequence[Block]:
    if len(words) < 2:
        return [read(word) for word in words]
    leads_nowhere = words[0] in _NOWHERE
    address = None if leads_nowhere else _address(words[0])
    if (address is None and not leads_nowhere) or read is not blocked_host:
        msg = "has several words: write one name a line"
        raise ValueError(msg)
    names = [name for name in words[1:] if name.lower() not in _OWN_NAMES]
    if names and address is not None and not (address.is_unspecified or address.is_loopback):
        msg = f"maps a name to {words[0]}: a block list maps names to 0.0.0.0"
        raise ValueError(msg)
    return [read(name) for name in names]


def _address(word: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(word)
    except ValueError:
        return None


def _lines(file: BinaryIO) -> Iterator[bytes | None]:
    """Give the lines of *file*; None for one that is too long."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        if len(line) <= MAX_LINE_BYTES or line.endswith(b"\n"):
            yield line
            continue
        yield None
        while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
            pass
