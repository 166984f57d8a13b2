"""
The letters and emoji that slugs may have besides ASCII, and how they may stand together.

Refused with all that is not listed: what has another compatibility form, what is invisible, digits of other
scripts, and marks that several scripts share. The table is of Unicode 14, whatever Python's is, so that all
processes agree: letters and marks of the scripts that UAX 31 recommends, from the properties Script,
General_Category and Emoji; Latin letters are those that decompose to one of ASCII, and a few more.
"""

from __future__ import annotations

import re
from functools import cache

_RANGES = {
    "Latin": (
        "c0-d6 d8-f6 f8-131 134-137 139-13e 141-148 14a-165 168-17e 18f 1a0-1a1 1af-1b0 1cd-1dc 1de-1e1 "
        "1e6-1ed 1f0 1f4-1f5 1f8-1fb 200-21b 21e-21f 226-233 259 1e00-1e99 1e9e 1ea0-1ef9"
    ),
    "Greek": "370-373 376-377 37b-37d 37f 386 388-38a 38c 38e-3a1 3a3-3cf 3d7-3e1 3f3 3f7-3f8 3fa-3ff",
    "Cyrillic": "400-481 48a-52f",
    "Armenian": "531-556 559 560-586 588",
    "Hebrew": "591-5bd 5bf 5c1-5c2 5c4-5c5 5c7 5d0-5ea 5ef-5f2 fb1e",
    "Arabic": (
        "610-61a 620-63f 641-64a 656-65f 66e-66f 671-674 679-6d3 6d5-6dc 6df-6e8 6ea-6ef 6fa-6fc 6ff 750-77f"
    ),
    "Thaana": "780-7b1",
    "Devanagari": "900-950 955-957 960-963 971-97f a8e0-a8f7 a8fb a8fd-a8ff",
    "Bengali": (
        "980-983 985-98c 98f-990 993-9a8 9aa-9b0 9b2 9b6-9b9 9bc-9c4 9c7-9c8 9cb-9ce 9d7 9e0-9e3 9f0-9f1 "
        "9fc 9fe"
    ),
    "Gurmukhi": (
        "a01-a03 a05-a0a a0f-a10 a13-a28 a2a-a30 a32 a35 a38-a39 a3c a3e-a42 a47-a48 a4b-a4d a51 a5c a70-a75"
    ),
    "Gujarati": (
        "a81-a83 a85-a8d a8f-a91 a93-aa8 aaa-ab0 ab2-ab3 ab5-ab9 abc-ac5 ac7-ac9 acb-acd ad0 ae0-ae3 af9-aff"
    ),
    "Oriya": (
        "b01-b03 b05-b0c b0f-b10 b13-b28 b2a-b30 b32-b33 b35-b39 b3c-b44 b47-b48 b4b-b4d b55-b57 b5f-b63 b71"
    ),
    "Tamil": (
        "b82-b83 b85-b8a b8e-b90 b92-b95 b99-b9a b9c b9e-b9f ba3-ba4 ba8-baa bae-bb9 bbe-bc2 bc6-bc8 "
        "bca-bcd bd0 bd7"
    ),
    "Telugu": "c00-c0c c0e-c10 c12-c28 c2a-c39 c3c-c44 c46-c48 c4a-c4d c55-c56 c58-c5a c5d c60-c63",
    "Kannada": (
        "c80-c83 c85-c8c c8e-c90 c92-ca8 caa-cb3 cb5-cb9 cbc-cc4 cc6-cc8 cca-ccd cd5-cd6 cdd-cde ce0-ce3 "
        "cf1-cf2"
    ),
    "Malayalam": "d00-d0c d0e-d10 d12-d44 d46-d48 d4a-d4e d54-d57 d5f-d63 d7a-d7f",
    "Sinhala": "d81-d83 d85-d96 d9a-db1 db3-dbb dbd dc0-dc6 dca dcf-dd4 dd6 dd8-ddf df2-df3",
    "Thai": "e01-e32 e34-e3a e40-e4e",
    "Lao": "e81-e82 e84 e86-e8a e8c-ea3 ea5 ea7-eb2 eb4-ebd ec0-ec4 ec6 ec8-ecd ede-edf",
    "Tibetan": (
        "f00 f18-f19 f35 f37 f39 f3e-f42 f44-f47 f49-f4c f4e-f51 f53-f56 f58-f5b f5d-f68 f6a-f6c f71-f72 "
        "f74 f7a-f80 f82-f84 f86-f92 f94-f97 f99-f9c f9e-fa1 fa3-fa6 fa8-fab fad-fb8 fba-fbc fc6"
    ),
    "Myanmar": "1000-103f 1050-108f 109a-109d",
    "Georgian": "10d0-10fa 10fd-10ff",
    "Ethiopic": (
        "1200-1248 124a-124d 1250-1256 1258 125a-125d 1260-1288 128a-128d 1290-12b0 12b2-12b5 12b8-12be "
        "12c0 12c2-12c5 12c8-12d6 12d8-1310 1312-1315 1318-135a 135d-135f"
    ),
    "Khmer": "1780-17b3 17b6-17d3 17d7 17dc-17dd",
    "Han": "3005 3400-4dbf 4e00-9fff",
    "Hiragana": "3041-3096 309d-309e",
    "Katakana": "30a1-30fa 30fd-30fe 31f0-31ff",
    "Hangul": "ac00-d7a3",
    "Bopomofo": "3105-312f 31a0-31bf",
    "Emoji": (
        "a9 ae 2194-2199 21a9-21aa 231a-231b 2328 23cf 23e9-23f3 23f8-23fa 25aa-25ab 25b6 25c0 25fb-25fe "
        "2600-2604 260e 2611 2614-2615 2618 261d 2620 2622-2623 2626 262a 262e-262f 2638-263a 2640 2642 "
        "2648-2653 265f-2660 2663 2665-2666 2668 267b 267e-267f 2692-2697 2699 269b-269c 26a0-26a1 26a7 "
        "26aa-26ab 26b0-26b1 26bd-26be 26c4-26c5 26c8 26ce-26cf 26d1 26d3-26d4 26e9-26ea 26f0-26f5 "
        "26f7-26fa 26fd 2702 2705 2708-270d 270f 2712 2714 2716 271d 2721 2728 2733-2734 2744 2747 274c "
        "274e 2753-2755 2757 2763-2764 2795-2797 27a1 27b0 27bf 2934-2935 2b05-2b07 2b1b-2b1c 2b50 2b55 "
        "3030 303d 1f004 1f0cf 1f170-1f171 1f17e-1f17f 1f18e 1f191-1f19a 1f300-1f321 1f324-1f393 "
        "1f396-1f397 1f399-1f39b 1f39e-1f3f0 1f3f3-1f3f5 1f3f7-1f3fa 1f400-1f4fd 1f4ff-1f53d 1f549-1f54e "
        "1f550-1f567 1f56f-1f570 1f573-1f57a 1f587 1f58a-1f58d 1f590 1f595-1f596 1f5a4-1f5a5 1f5a8 "
        "1f5b1-1f5b2 1f5bc 1f5c2-1f5c4 1f5d1-1f5d3 1f5dc-1f5de 1f5e1 1f5e3 1f5e8 1f5ef 1f5f3 1f5fa-1f64f "
        "1f680-1f6c5 1f6cb-1f6d2 1f6d5-1f6d7 1f6dd-1f6e5 1f6e9 1f6eb-1f6ec 1f6f0 1f6f3-1f6fc 1f7e0-1f7eb "
        "1f7f0 1f90c-1f93a 1f93c-1f945 1f947-1f9ff 1fa70-1fa74 1fa78-1fa7c 1fa80-1fa86 1fa90-1faac "
        "1fab0-1faba 1fac0-1fac5 1fad0-1fad9 1fae0-1fae7 1faf0-1faf6"
    ),
}
# Letters whose look-alike in the table of UTS 39 is one of ASCII, or a digit.
_LOOK_ALIKES = (
    "37f 391-392 395-397 399-39a 39c-39d 39f 3a1 3a4-3a5 3a7 3b1 3b3 3b9 3bd 3bf 3c1 3c3 3c5 3dc 3f3 "
    "3fa 405-406 408 410 412 415 417 41a 41c-41e 420-423 425 42c 430-431 433 435 43e 440-441 443 445 "
    "455-456 458 461 474-475 4ae-4af 4bb 4bd 4c0 4cf 4e0 501 50c 51b-51d 54d 54f 555 561 563 566 570 "
    "578 57c-57d 581 584-585 b03 b20 c02 c82 d02 d20 d82 101d 10e7 10ff 1200 12d0"
)
_LATIN, _EMOJI = "Latin", "Emoji"
# UTS 39 5.2, highly restrictive: these may stand beside Latin, and beside each other.
_TOGETHER = (
    frozenset({_LATIN, "Han", "Hiragana", "Katakana"}),
    frozenset({_LATIN, "Han", "Bopomofo"}),
    frozenset({_LATIN, "Han", "Hangul"}),
)
_FLAG = re.compile("[\U0001f1e6-\U0001f1ff]{2}")
_TONE = "[\U0001f3fb-\U0001f3ff]?"


def problem(text: str) -> str | None:
    """
    Return what is wrong with *text*, in canonical form, as the end of a sentence; ASCII is not judged.

    All segments together have the scripts of one slug. What makes one emoji of several characters joins none
    of two segments.
    """
    letters = _emoji().sub("", text)
    if letters.isascii():
        return None
    scripts = _scripts()
    found: set[str] = set()
    for character in letters:
        script = scripts.get(character, _LATIN if character.isascii() else None)
        if script is None or script == _EMOJI:
            return f"has U+{ord(character):04X}, which no slug has there"
        if not character.isascii() or character.isalpha():
            found.add(script)
    if len(found) > 1 and not any(found <= together for together in _TOGETHER):
        return f"mixes scripts: {', '.join(sorted(found))}"
    if all((one.isascii() and not one.isalpha()) or one in _look_alikes() for one in letters):
        return "looks like another in ASCII"
    return None


@cache
def _emoji() -> re.Pattern[str]:
    ranges = (one.partition("-") for one in _RANGES[_EMOJI].split())
    listed = "".join(f"{chr(int(first, 16))}-{chr(int(last or first, 16))}" for first, _, last in ranges)
    one = f"[{listed}]{_TONE}"
    return re.compile(f"{one}(?:\u200d{one})*|{_FLAG.pattern}")


@cache
def _scripts() -> dict[str, str]:
    return {one: script for script, ranges in _RANGES.items() for one in _characters(ranges)}


@cache
def _look_alikes() -> frozenset[str]:
    return frozenset(_characters(_LOOK_ALIKES))


def _characters(ranges: str) -> list[str]:
    ends = (one.partition("-") for one in ranges.split())
    return [chr(n) for first, _, last in ends for n in range(int(first, 16), int(last or first, 16) + 1)]
