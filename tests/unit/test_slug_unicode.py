"""Slugs of other letters than those of ASCII."""

from __future__ import annotations

import re
import shutil
import subprocess
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain import scripts, slug
from app.domain.errors import InvalidInput
from app.domain.slug import ALL, MOVED, Kinds, canonical

ACCEPTED = """
    über café naïve-x żółw straße привет ёлка ελλάδα हिन्दी ไทย ഫോൺ שלום مرحبا
    日本語 日本語-abc アイス 한국어 中文 ㄅㄆ 👍 👍🏽 👩‍💻 🇩🇪 ok👍 sale/été/🎉 🎉🎉 ßß
    🎉/🎉 👩‍💻/🇩🇪 2026/привет/🎉 日本/sale роса/привет
""".split()


@pytest.mark.parametrize("text", ACCEPTED)
def test_slug_of_one_script_or_of_emoji_is_accepted(text):
    name = canonical(text)

    assert slug.parse(name, MOVED, ALL) == name
    assert slug.is_well_formed(name, ALL)
    with pytest.raises(InvalidInput):
        slug.parse(name, MOVED, Kinds(segments=True))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("аpple", "mixes scripts: Cyrillic, Latin"),
        ("paypаl/x", "mixes scripts: Cyrillic, Latin"),
        ("привет/hello", "mixes scripts: Cyrillic, Latin"),
        ("アイ한국", "mixes scripts: Hangul, Katakana"),
        ("שלוםمرحبا", "mixes scripts"),
        ("роса", "looks like another in ASCII"),
        ("аре-2", "looks like another in ASCII"),
        ("ΑΒΕ", "looks like another in ASCII"),
        ("ａdmin", "U+FF41"),
        ("a\u200bbc", "U+200B"),
        ("abc\u200dd", "U+200D"),
        ("👍\u200d", "U+200D"),
        ("👍\u200dx", "U+200D"),
        ("👩\u200d/💻", "U+200D"),
        ("a/\u200d💻", "U+200D"),
        ("🇩/🇪", "U+1F1E9"),
        ("👍/🏽", "U+1F3FD"),
        ("роса/🎉", "looks like another in ASCII"),
        ("роса/2", "looks like another in ASCII"),
        ("привет/日本語", "mixes scripts: Cyrillic, Han"),
        ("привет/🎉/x", "mixes scripts: Cyrillic, Latin"),
        ("abc\u202e", "U+202E"),
        ("abc\u2066", "U+2066"),
        ("a\u00adbc", "U+00AD"),
        ("x\u0301", "U+0301"),
        ("ﬁx", "U+FB01"),
        ("ɑbc", "U+0251"),
        ("١٢٣", "U+0661"),
        ("🇩", "U+1F1E9"),
        ("1\u20e3", "U+20E3"),
        ("ิก", "marks"),
        ("กิิิิ", "marks"),
        ("a\u2044b", "U+2044"),
        ("Ⓜ", "U+24C2"),
        ("㋿", "U+32FF"),
        ("\ue000", "U+E000"),
    ],
)
def test_slug_that_could_be_taken_for_another_is_refused(text, what):
    with pytest.raises(InvalidInput) as caught:
        slug.parse(canonical(text), MOVED, ALL)

    [error] = caught.value.errors
    assert (error.field, error.code) == ("slug", "slug_unicode")
    assert what in error.message


@pytest.mark.parametrize(
    "text", ["a b", "é\x00", "é\u2028", "é ", "é\u3000x", "\ud800", "é/", "é//x", "é/../x", "é.x"]
)
def test_no_slug_at_all(text):
    with pytest.raises(InvalidInput) as caught:
        slug.parse(canonical(text), MOVED, ALL)

    assert caught.value.errors[0].code == "slug_malformed"


def test_length_is_counted_in_characters_and_in_bytes():
    assert slug.parse("é" * 120, MOVED, ALL)
    for text in ("é" * 121, "한" * 81, "🎉" * 61):
        with pytest.raises(InvalidInput) as caught:
            slug.parse(text, MOVED, ALL)
        assert "240 bytes" in caught.value.errors[0].message


def test_text_that_is_too_long_for_any_slug_is_left_alone():
    """To sort the marks of a letter takes the square of their number."""
    marks = "a" + "\u0323\u0301" * slug.MAX_TYPED
    for ignoring_case in (False, True):
        assert canonical(marks, ignoring_case=ignoring_case) == marks
    assert not slug.is_well_formed(marks, ALL)
    with pytest.raises(InvalidInput):
        slug.parse(marks, MOVED, ALL)


def test_no_spelling_of_a_slug_is_too_long():
    letters = [letter for letter, script in scripts._scripts().items() if script != "Emoji"]
    longest = max(letters, key=lambda one: len(unicodedata.normalize("NFD", one)) / len(one.encode()))
    name = longest * (slug.MAX_BYTES // len(longest.encode()))

    assert canonical(unicodedata.normalize("NFD", name)) == name == slug.parse(name, MOVED, ALL)
    assert canonical("❤\ufe0f" * 80) == "❤" * 80


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("É", "é"),
        ("É".lower(), "é"),
        ("E\u0301", "é"),
        ("STRASSE", "strasse"),
        ("straße", "strasse"),
        ("ΟΔΟΣ", "οδοσ"),
        ("οδος", "οδοσ"),
        ("İstanbul", "istanbul"),
        ("❤\ufe0f", "❤"),
        ("ПРИВЕТ", "привет"),
    ],
)
def test_spellings_without_case_are_one(typed, stored):
    assert canonical(typed, ignoring_case=True) == stored


@given(st.text(max_size=20), st.booleans())
def test_canonical_form_is_stable(text, ignoring_case):
    name = canonical(text, ignoring_case=ignoring_case)
    try:
        slug.parse(name, MOVED, ALL)
    except InvalidInput:
        return

    for form in ("NFC", "NFD"):
        spelled = unicodedata.normalize(form, name)
        assert canonical(spelled, ignoring_case=ignoring_case) == name
    assert name.isprintable() or "\u200d" in name


def test_letters_of_the_table_fold_to_letters_of_the_table():
    """A domain without case stores what it has folded: that must obey the rules as well."""
    table = scripts._scripts()
    for letter, script in table.items():
        folded = canonical(letter, ignoring_case=True)
        assert canonical(folded, ignoring_case=True) == folded
        assert all(one.isascii() or table.get(one) == script for one in folded), letter
        assert unicodedata.normalize("NFKC", letter) == letter


_OF_UNICODE = r"""
binmode STDOUT, ":utf8";
for my $code (0xa0..0xffff) {
    my $one = chr $code;
    next if $one !~ /[\p{L}\p{Mn}\p{Mc}]/ || $one =~ /\p{Default_Ignorable_Code_Point}/;
    printf "%x %s\n", $code, Unicode::UCD::charscript($code);
}
for my $code (0xa0..0x1ffff) {
    printf "%x Emoji\n", $code if chr($code) =~ /\p{Emoji}/ && chr($code) =~ /\p{Extended_Pictographic}/;
}
"""
# The blocks of living use; of other scripts all letters below U+10000 are in the table.
_BLOCKS = {
    "Greek": "\u0370-\u03ff",
    "Cyrillic": "\u0400-\u052f",
    "Georgian": "\u10d0-\u10ff",
    "Ethiopic": "\u1200-\u137f",
    "Arabic": "\u0600-\u077f",
    "Myanmar": "\u1000-\u109f",
    "Hangul": "\uac00-\ud7a3",
    "Han": "\u3005\u3007\u3400-\u9fff",
}


def test_table_is_that_of_unicode():
    """Perl has the properties that Python lacks."""
    perl = shutil.which("perl")
    version = "use Unicode::UCD; print Unicode::UCD::UnicodeVersion()"
    if perl is None or run_perl(perl, version) != "14.0.0":
        pytest.skip("no perl with Unicode 14")
    others = set("ßæœøđħıłŋþðəÆŒØĐĦŁŊÞÐƏẞ")
    wanted: dict[str, str] = {}
    for line in run_perl(perl, f"use Unicode::UCD;{_OF_UNICODE}").splitlines():
        code, script = line.split()
        letter = chr(int(code, 16))
        parts = unicodedata.normalize("NFD", letter)
        if script not in scripts._RANGES or unicodedata.normalize("NFKC", letter) != letter:
            continue
        if script == "Latin" and letter not in others and not (parts[0].isascii() and len(parts) > 1):
            continue
        if script == "Cyrillic" and unicodedata.category(letter)[0] == "M":
            continue
        if script not in _BLOCKS or re.match(f"[{_BLOCKS[script]}]", letter):
            wanted[letter] = script

    assert scripts._scripts() == wanted


def run_perl(perl: str, program: str) -> str:
    return subprocess.run([perl, "-e", program], capture_output=True, text=True, check=True).stdout


def test_what_is_pasted_behind_a_slug_ends_none():
    """So no link is hidden by what is cut off, whatever kinds of slugs its domain has."""
    seen = "/.,) ;:!?'\"]}>*\\`|\t\r\n…’‘”“»«›‹–—。、，；：！？）］】」』"
    for end in seen + "\xa0\xad\u200b\u200c\u200e\u2028\u3000\ufeff":
        assert slug.as_pasted(f"grün{end}{end}") == "grün"
        with pytest.raises(InvalidInput):
            slug.parse(f"grün{end}", kinds=ALL)
    for end in "_-9zé😀":
        assert slug.as_pasted(f"grün{end}") == f"grün{end}"
