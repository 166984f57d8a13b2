"""A browser without a screen or scripts: a session of the console that follows forms."""

from __future__ import annotations

import html
import re
from typing import Self

import httpx

from tests.servers.hopgate import Gateway

_TOKEN = re.compile(r'name="form_token" value="([^"]+)"')
_ONCE = re.compile(r'name="once" value="([^"]+)"')


class ConsoleSession:
    """`with ConsoleSession(gateway, key) as console:` signs in."""

    def __init__(self, gateway: Gateway, key: str = "") -> None:
        self.http = httpx.Client(base_url=gateway.url, follow_redirects=False)
        self.token = ""
        if key:
            self.signed_in(self.http.post("/console/sign-in", data={"key": key}))

    def signed_in(self, answer: httpx.Response) -> None:
        assert (answer.status_code, answer.headers["location"]) == (303, "/console"), answer.text
        self.token = html.unescape(_TOKEN.findall(self.get("/console").text)[0])

    def get(self, path: str, **query: str) -> httpx.Response:
        return self.http.get(path, params=query or None)

    def send(self, path: str, **form: str) -> httpx.Response:
        return self.http.post(path, data={"form_token": self.token, **form})

    def upload(self, content: bytes, **form: str) -> httpx.Response:
        fields = {"form_token": self.token, **form}
        return self.http.post("/console/import", data=fields, files={"file": ("links.csv", content)})

    def create(self, **form: str) -> httpx.Response:
        page = self.get("/console/links/new").text
        return self.send("/console/links/new", once=_ONCE.findall(page)[0], **form)

    def page(self, slug: str) -> httpx.Response:
        return self.get("/console/link", slug=slug)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
