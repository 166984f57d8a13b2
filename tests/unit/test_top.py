"""The page of `hopgate top`, and what it reads from servers that mean it harm."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from rich.console import Console

from app.commands.top import Figures, NoAnswer, Source, page
from app.telemetry import families, prometheus
from app.telemetry.overview import overview
from app.telemetry.samples import Samples

SAMPLES: Samples = {
    families.PROCESSES.of(): [2],
    families.BREAKER_STATE.of("redis.read", "open"): [2],
    families.QUEUE_MESSAGES.of("hopgate.cache", "ready"): [1234],
    families.HTTP_REQUESTS.of("/{slug}", "GET", "302"): [100],
}


def shown(figures: Figures) -> str:
    console = Console(width=80, force_terminal=False, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(page(figures))
    return captured.get()


@contextmanager
def serving(answers: dict[str, bytes]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answers.get(self.path, b""))

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_page_shows_the_figures():
    figures = Figures("http://127.0.0.1:8000", {"store": "ok", "cache": "away"}, overview({}, SAMPLES, 2))

    lines = [" ".join(line.split()) for line in shown(figures).splitlines()]

    assert "cache away" in lines
    assert "requests/s 50.0" in lines
    assert "circuit breakers redis.read open (2)" in lines
    assert "hopgate.cache 1,234 - -" in lines
    assert "outbox -" in lines
    assert "redirects - - -" in lines


def test_what_servers_send_is_inert():
    evil = "\x1b]0;x\x07\x9b2J\u202e[red]" + "x" * 1000
    samples: Samples = {
        families.BREAKER_STATE.of(evil, "open"): [1],
        families.BREAKER_STATE.of("name", evil): [1],
        families.QUEUE_MESSAGES.of(evil, "ready"): [1],
        families.LIMITED.of(evil): [1],
        families.LAYERS.of(evil, "hit"): [1],
    }

    text = shown(Figures("http://127.0.0.1:8000", {evil: evil}, overview({}, samples, 1)))

    assert set(text) & {"\x1b", "\x07", "\x9b", "\u202e"} == set()
    assert "\\x1b]0;x\\x07" in text
    assert len(text) < 5000


def test_source_reads_samples_and_dependencies():
    answers = {
        "/metrics": prometheus.text(SAMPLES),
        "/readyz": b'{"status": "degraded", "dependencies": {"store": "ok", "cache": "away"}}',
    }
    with serving(answers) as url:
        source = Source(url)

        assert source.samples()[1] == SAMPLES
        assert source.dependencies() == {"store": "ok", "cache": "away"}


@pytest.mark.parametrize("body", [b"", b"\xff", b"<p>{", b"{} 1", b"x{y= 1", b"# TYPE x\nx 1"])
def test_other_servers_are_no_gateway(body):
    with serving({"/metrics": body, "/readyz": body}) as url:
        source = Source(url)

        with pytest.raises(NoAnswer, match="has no metrics of Hopgate"):
            source.samples()
        assert source.dependencies() is None


@pytest.mark.parametrize("body", [b"[]", b'{"dependencies": 3}', b"[" * 100_000])
def test_unreadable_dependencies_are_unknown(body):
    with serving({"/readyz": body}) as url:
        assert Source(url).dependencies() is None


@pytest.mark.parametrize(
    "url",
    [
        *("", "127.0.0.1:8000", "ftp://127.0.0.1", "http://", "http://a:b", "http://[::1"),
        *("http://u:p@127.0.0.1", "http://127.0.0.1/path", "http://127.0.0.1?q", "file:///etc/passwd"),
    ],
)
def test_other_urls_are_refused(url):
    with pytest.raises(NoAnswer, match="the URL must be like"):
        Source(url)
