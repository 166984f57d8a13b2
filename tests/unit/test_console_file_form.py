"""Forms with a file."""

from __future__ import annotations

import tempfile

import httpx
import pytest

from app.console import file_form


def form(content: bytes, boundary: str = "b") -> file_form.FileForm:
    with tempfile.TemporaryFile() as body, tempfile.TemporaryFile() as file:
        body.write(content)
        return file_form.read(body, boundary, file_field="file", to=file)


@pytest.mark.parametrize(
    "content",
    [b"", b"a", b"\r\n", b"--b\r\n--b--", b"long_url\r\nhttps://example.com/\r\n", b"\x00\xff" * 9999],
)
def test_file_and_fields_come_back_as_they_were_sent(content):
    fields = {"form_token": "t", "ignore": "a, ü", "empty": ""}
    request = httpx.Request("POST", "http://a", data=fields, files={"file": ('x"y.csv', content)})
    boundary = file_form.boundary_of(request.headers["content-type"])
    assert boundary is not None

    with tempfile.TemporaryFile() as body, tempfile.TemporaryFile() as file:
        body.write(request.read())
        found = file_form.read(body, boundary, file_field="file", to=file)
        file.seek(0)

        assert file.read() == content
    assert found.size == len(content)
    assert found.fields == fields


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        b"--b",
        b"--b\r\n",
        b"--bb--",
        b"--b\r\n\r\nvalue\r\n--b--",
        b'--b\r\nContent-Disposition: form-data; filename="name="\r\n\r\nvalue\r\n--b--',
        b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nvalue',
        b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\xff\r\n--b--',
        b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + b"x" * 9000 + b"\r\n--b--",
        b"--b\r\n" + b"x" * 9000 + b'\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n--b--',
        b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 99 + b"--b--",
        b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n' * 2 + b"--b--",
    ],
)
def test_what_is_no_form_is_refused(content):
    with pytest.raises(file_form.Malformed):
        form(content)


@pytest.mark.parametrize(
    "media_type",
    ["", "text/csv", "multipart/form-data", "multipart/form-data; boundary=", "multipart/mixed; boundary=b"],
)
def test_other_types_have_no_boundary(media_type):
    assert file_form.boundary_of(media_type) is None
