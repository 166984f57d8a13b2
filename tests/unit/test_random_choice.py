from __future__ import annotations

import os
from collections import Counter

from app.adapters.random_choice import RandomChoice
from app.domain.slug import ALPHABET


def test_characters_are_chosen_alike() -> None:
    """Of 57,000 each comes up 1,000 times, and within 8 standard deviations of that in any run."""
    choice = RandomChoice()

    counted = Counter(choice(ALPHABET) for _ in range(1000 * len(ALPHABET)))

    assert set(counted) == set(ALPHABET)
    assert all(750 < count < 1250 for count in counted.values())


def test_single_character_is_chosen() -> None:
    assert RandomChoice()("x") == "x"


def test_forked_process_chooses_otherwise() -> None:
    choice = RandomChoice()
    choice(ALPHABET)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, "".join(choice(ALPHABET) for _ in range(40)).encode())
        os._exit(0)
    os.waitpid(child, 0)

    theirs = os.read(reader, 40).decode()
    os.close(reader)
    os.close(writer)

    assert theirs != "".join(choice(ALPHABET) for _ in range(40))
