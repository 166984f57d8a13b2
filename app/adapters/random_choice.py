"""Unpredictable choices, for slugs."""

from __future__ import annotations

import os
from collections.abc import Iterator

# Bytes that are asked of the kernel at once: with a call for each character, the slug of a link takes as
# long as the rules for its fields.
_AT_ONCE = 1024


class RandomChoice:
    """
    Picks characters as `secrets.choice` does, from bytes of `os.urandom` that it keeps for the next calls.

    Any thread may call it. A fork begins with bytes of its own.
    """

    def __init__(self) -> None:
        self._bytes: Iterator[int] = iter(b"")
        os.register_at_fork(after_in_child=self._forget)

    def __call__(self, characters: str) -> str:
        """Return one of *characters*, of which there are 1 to 256, each as likely as the others."""
        # The bytes from here on would make the first characters more likely.
        end = 256 - 256 % len(characters)
        while True:
            byte = next(self._bytes, None)
            if byte is None:
                self._bytes = iter(os.urandom(_AT_ONCE))
            elif byte < end:
                return characters[byte % len(characters)]

    def _forget(self) -> None:
        self._bytes = iter(b"")


random_choice = RandomChoice()
