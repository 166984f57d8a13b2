"""What a file is: recognised, or refused as a whole with the way out."""

from __future__ import annotations

import io
from collections.abc import Iterable

import pytest

from app.interchange.errors import FileRefused
from app.interchange.lines import MAX_LINE
from app.interchange.reading import Reading
from app.interchange.records import Accepted, Refused, domain_check

TABLE = "keyword,url,title\nfirst,https://example.com/1,One\n"


def read(
    data: bytes | str, *, dialect: str | None = None, ignore: Iterable[str] = ()
) -> tuple[Reading, list[Accepted | Refused]]:
    raw = data.encode() if isinstance(data, str) else data
    reading = Reading(io.BytesIO(raw), check=domain_check(()), dialect=dialect, ignore=ignore)
    return reading, list(reading)


def links(rows: list[Accepted | Refused]) -> list[tuple[str | None, str]]:
    return [(row.record.slug, row.record.fields.long_url) for row in rows if isinstance(row, Accepted)]


def codes(rows: list[Accepted | Refused]) -> list[tuple[int, str]]:
    return [(row.line, row.errors[0].code) for row in rows if isinstance(row, Refused)]


# --- encodings -----------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("text", [TABLE, TABLE.replace("\n", "\r\n"), TABLE.replace("\n", "\r")])
def test_encodings_are_recognised(encoding, text):
    _, rows = read(text.encode(encoding))

    assert links(rows) == [("first", "https://example.com/1")]


def test_big_endian_utf16_is_recognised():
    _, rows = read(b"\xfe\xff" + TABLE.encode("utf-16-be"))

    assert links(rows) == [("first", "https://example.com/1")]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (TABLE.encode("utf-16-le"), "without a byte order mark"),
        (TABLE.encode("utf-32"), "UTF-32"),
        (TABLE.encode("utf-16")[:-1], "cut off"),
        (b"PK\x03\x04\x14\x00", "workbook"),
        (b"\x1f\x8b\x08\x00", "compressed"),
        (b"SQLite format 3\x00", "database"),
        ("slug,url,größe\n".encode("latin-1"), "line 1 is not UTF-8"),
        (b"\n# c\n\xff\xfd,url\n", "line 3 is not UTF-8"),
        (b"slug,url\x00\n", "line 1 is not UTF-8, or binary"),
    ],
)
def test_other_encodings_refuse_the_file(data, reason):
    with pytest.raises(FileRefused, match=reason):
        read(data)


def test_foreign_bytes_refuse_their_row():
    data = (
        TABLE.encode()
        + "caf,https://example.com/2,café\n".encode("latin-1")
        + b"nul,https://example.com/3,\0\n"
    )

    _, rows = read(data)

    assert links(rows) == [("first", "https://example.com/1")]
    assert codes(rows) == [(3, "encoding"), (4, "encoding")]


# --- heads of tables -------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    "head", ["", "\n  \n", "# exported today\n#\n\n", "sep={mark}\r\n", '"sep={mark}"\n\n# c\n']
)
def test_delimiters_are_recognised(mark, head):
    _, rows = read(head.format(mark=mark) + TABLE.replace(",", mark))

    assert links(rows) == [("first", "https://example.com/1")]


def test_line_numbers_count_what_is_skipped():
    _, rows = read("\n# c\nkeyword,url\n\nfirst,ftp://example.com/\n")

    assert codes(rows) == [(5, "url_scheme")]


@pytest.mark.parametrize(
    "header",
    [
        "Long URL,Short Code",
        "long_url,short_code",
        "LONGURL,shortcode",
        " Long-URL , ShortCode ",
        '"longUrl","shortCode"',
    ],
)
def test_header_names_have_many_spellings(header):
    reading, rows = read(f"{header}\nhttps://example.com/1,first\n")

    assert reading.dialect == "shlink"
    assert links(rows) == [("first", "https://example.com/1")]


def test_a_long_and_a_short_url_make_no_table_of_shlink():
    """Tables of any program have them; Shlink's would not say what clicks are."""
    header = "Long URL,Short URL,Clicks,Tags"
    reading, rows = read(f"{header}\nhttps://example.com/1,https://s.example/first,7,a;b\n")

    assert reading.dialect == "csv"
    records = [(row.record.visits, row.record.fields.tags) for row in rows if isinstance(row, Accepted)]
    assert records == [(7, ("a", "b"))]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Kurzlink;Ziel;Titel\nabc;https://example.com/;T\n", "‘Kurzlink’, ‘Ziel’, ‘Titel’"),
        ("短链接,目标\nabc,https://example.com/\n", "‘短链接’, ‘目标’"),
        ("abc,https://example.com/1\ndef,https://example.com/2\n", "line 1 is no header, for it holds a URL"),
        ("slug,title\nabc,T\n", "no known format: ‘slug’, ‘title’"),
        ("just some words\nand more\n", "‘just some words’"),
        ("sep=:\nslug:url\n", "line 1 names the delimiter :"),
        ("sep=;\nslug,url\nabc,https://example.com/\n", "‘slug,url’"),
        ("sep=,\nhttps://example.com/1\n", "line 2 is no header"),
        ('slug,"url\nabc,https://example.com/\n', "line 1 is no header: a quotation mark is not closed"),
        ("slug,url,URL\nabc,https://example.com/1,https://example.com/2\n", "two columns are called ‘URL’"),
        ("slug,url;title\nabc,https://example.com/;T\n", "no known format"),
        ("slug,url,title;x\nabc,https://example.com/,T;x\n", "second delimiter"),
        ("keyword,url,code,target\n", "more than one format.*shortlinker, yourls"),
        ("x" * (MAX_LINE + 1), "line 1 is too long"),
        ("url,vanity name\nhttps://example.com/,abc\n", "‘vanity name’ may be the short link"),
        ("url,link\nhttps://example.com/,abc\n", "‘link’ may be the short link"),
    ],
)
def test_unknown_head_refuses_the_file(text, reason):
    with pytest.raises(FileRefused, match=reason):
        read(text)


def test_refusal_shows_no_control_characters():
    with pytest.raises(FileRefused) as refused:
        read("javascript:\033]0;pwn\007\u202e\n")

    assert "\\x1b" in str(refused.value)
    assert str(refused.value).isprintable()


def test_named_format_settles_what_is_ambiguous():
    reading, rows = read(
        "keyword,url,code,target\na-b,https://example.com/1,c-d,https://example.com/2\n",
        dialect="shortlinker",
        ignore=["keyword", "url"],
    )

    assert (reading.dialect, links(rows)) == ("shortlinker", [("c-d", "https://example.com/2")])


def test_ignored_columns_settle_what_is_ambiguous():
    reading, rows = read(
        "keyword,url,code,target\na-b,https://example.com/1,c-d,https://example.com/2\n",
        ignore=["Keyword", "URL"],
    )

    assert (reading.dialect, reading.left_out) == ("shortlinker", ("keyword", "url"))
    assert links(rows) == [("c-d", "https://example.com/2")]


def test_unknown_name_of_a_format_lists_them():
    with pytest.raises(FileRefused, match=r"no format ‘bitlee’; there are hopgate, .*bitly.*, urls"):
        read(TABLE, dialect="bitlee")


# --- rows of tables --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("abc,https://example.com/?ids=1,2,T", "cells_too_many"),
        ("abc,https://example.com/", "cells_too_few"),
        ("abc", "cells_too_few"),
        ("# a comment", "cells_too_few"),
        ('abc,https://example.com/,"T', "quote_unclosed"),
        ('abc,https://example.com/,"T" x', "quote_stray"),
        ("abc,https://example.com/," + "x" * MAX_LINE, "row_too_long"),
        ("abc,https://example.com/," + "x" * 140_000, "title_invalid"),
        ("abc,,T", "url_empty"),
        (",https://example.com/,T", "slug_missing"),
        ('""', "cells_too_few"),
        ('"","",""', "slug_missing"),
    ],
)
def test_bad_row_is_refused_alone(row, code):
    _, rows = read(f"{TABLE}{row}\n" + ("" if code == "quote_unclosed" else "last,https://example.com/9,T\n"))

    assert [link for link in links(rows) if link[0] not in ("first", "last")] == []
    assert len(links(rows)) == 1 + (code != "quote_unclosed")
    assert codes(rows) == [(3, code)]


def test_unquoted_commas_in_the_only_column_are_refused():
    _, rows = read(
        'url\nhttps://example.com/?ids=1,2,3\n"https://example.com/?ids=1,2,3"\nhttps://e.example/;a\n'
    )

    assert links(rows) == [(None, "https://example.com/?ids=1,2,3")]
    assert codes(rows) == [(2, "cells_too_many"), (4, "cells_too_many")]


def test_delimiters_without_cells_are_blank():
    _, rows = read(TABLE + ",,\n;;\n , , \n")

    assert codes(rows) == [(4, "cells_too_few")]


def test_nameless_last_column_must_stay_empty():
    _, rows = read("keyword,url,\nabc,https://example.com/1,\ndef,https://example.com/2,x\n")

    assert links(rows) == [("abc", "https://example.com/1")]
    assert codes(rows) == [(3, "cells_too_many")]


def test_missing_line_end_is_noted():
    assert any("no line end" in note for note in read(TABLE.rstrip("\n"))[0].notes)


def test_missing_slugs_are_noted():
    assert [note for note in read("url\nhttps://example.com/1\n")[0].notes if "no slug" in note]


# --- lists of URLs ---------------------------------------------------------------------------


def test_list_lines_are_refused_one_by_one():
    _, rows = read(
        'https://example.com/1\n\n#c\nexample.com\n https://example.com/2 \nhttps://example.com/"x\n'
    )

    assert links(rows) == [(None, "https://example.com/1"), (None, "https://example.com/2")]
    assert codes(rows) == [(4, "url_scheme"), (6, "url_forbidden_character")]


@pytest.mark.parametrize("mark", [",", ";", "|", "\t"])
def test_table_without_header_is_no_list(mark):
    text = f"https://example.com/1{mark}abc{mark}Title\nhttps://example.com/2{mark}def{mark}Other\n"

    with pytest.raises(FileRefused, match="table without a header"):
        read(text)


@pytest.mark.parametrize("mark", [",", ";", "|"])
def test_table_without_header_and_with_unquoted_delimiters_is_no_list(mark):
    text = f"https://example.com/1{mark}abc{mark}Title\nhttps://example.com/2{mark}def\n"

    with pytest.raises(FileRefused, match="table without a header"):
        read(text)


def test_list_whose_urls_have_commas_here_and_there_is_one():
    _, rows = read("https://maps.example/@1,2,3z\nhttps://example.com/2\n")

    assert links(rows) == [(None, "https://maps.example/@1,2,3z"), (None, "https://example.com/2")]


def test_list_named_as_one_keeps_its_commas():
    reading, rows = read("https://maps.example/@1,2,3z\n", dialect="urls")

    assert (reading.dialect, links(rows)) == ("urls", [(None, "https://maps.example/@1,2,3z")])


@pytest.mark.parametrize("data", ["", "\n\n", "# nothing\n", "\ufeff"])
def test_empty_file_has_no_rows(data):
    assert read(data)[1] == []


# --- JSON --------------------------------------------------------------------------------------

ITEM = '{"keyword":"first","url":"https://example.com/1"}'


@pytest.mark.parametrize(
    "text",
    [
        ITEM,
        f"[{ITEM}]",
        f'{{"links":[{ITEM}]}}',
        f'{{"links":{{"link_1":{ITEM}}}}}',
        f"\n\n {ITEM}\n\n",
        f"# c\n{ITEM}\n{ITEM}",
    ],
)
def test_json_shapes_are_recognised(text):
    reading, rows = read(text)

    assert reading.dialect == "yourls"
    assert set(links(rows)) == {("first", "https://example.com/1")}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"links":[', "is not JSON"),
        (f"[{ITEM},", "is not JSON"),
        ('["https://example.com/"]', "first item is not a JSON object"),
        ('[{"foo":1,"bar":2}]', "first item names columns of no known format: ‘foo’, ‘bar’"),
        ('{"links":[],"links":[]}', "has ‘links’ twice"),
        ("[NaN]", "NaN is no JSON value"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_odd_json_refuses_the_file(text, reason):
    with pytest.raises(FileRefused, match=reason):
        read(text)


def test_odd_json_lines_are_refused_one_by_one():
    _, rows = read(
        f'{ITEM}\n{ITEM[:-1]}\n["x"]\n{{"keyword":"a-b","keyword":"c-d","url":"https://example.com/"}}\n\n'
        f'{{"keyword":"a-b","url":["https://example.com/"]}}\n{{"keyword":"a-b"}}\n{ITEM}\n'
    )

    assert len(links(rows)) == 2
    assert codes(rows) == [
        (2, "json_malformed"),
        (3, "json_no_object"),
        (4, "json_repeated"),
        (6, "text_expected"),
        (7, "url_empty"),
    ]


@pytest.mark.parametrize(
    "more",
    ['"total":9', '"pagination":{"total":9}', '"nextPageToken":"x"', '"pagination":{"next":"https://x"}'],
)
def test_part_of_an_answer_is_noted(more):
    reading, _ = read(f'{{"links":[{ITEM}],{more}}}')

    assert any("page of an answer" in note for note in reading.notes)


def test_delimiter_before_a_comment_makes_a_row_of_it():
    with pytest.raises(FileRefused, match="line 1 names columns of no known format"):
        read(",# one URL a line\nhttps://example.com/1\n")
