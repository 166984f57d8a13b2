"""Lifetimes: the expression that the OpenAPI document shows says exactly what is accepted."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain import lifetime
from app.domain.errors import InvalidInput

SHOWN = re.compile(lifetime.PATTERN)
LONGEST = {"s": 3_153_600_000, "m": 52_560_000, "h": 876_000, "d": 36_500, "w": 5_214}


def is_accepted(text):
    try:
        lifetime.parse(text)
    except InvalidInput:
        return False
    return True


@pytest.mark.parametrize("unit", LONGEST)
def test_longest_lifetime_of_each_unit(unit):
    assert is_accepted(f"{LONGEST[unit]}{unit}")
    assert not is_accepted(f"{LONGEST[unit] + 1}{unit}")


@given(st.integers(0, 10**11), st.sampled_from("smhdwy"), st.sampled_from(["", "0", "+"]))
def test_expression_and_rule_agree(number, unit, prefix):
    text = f"{prefix}{number}{unit}"

    assert is_accepted(text) == (SHOWN.match(text) is not None)


@pytest.mark.parametrize("unit", LONGEST)
def test_expression_and_rule_agree_around_the_longest(unit):
    for digits in range(1, 11):
        for number in {LONGEST[unit] + step * 10**power for step in (-1, 0, 1) for power in range(digits)}:
            text = f"{number}{unit}"
            assert is_accepted(text) == (SHOWN.match(text) is not None), text
