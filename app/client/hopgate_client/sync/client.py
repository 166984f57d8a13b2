"""The client: makes calls, and repeats them."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import IO, Self

import httpx
from hopgate_client import models, target
from hopgate_client.calls import Call, Repeat, given, query
from hopgate_client.fields import Time
from hopgate_client.retries import Answer, Attempts, Retries
from hopgate_client.sync.access import Blocks, Domains, Keys, Tags
from hopgate_client.sync.links import Links
from hopgate_client.sync.transfer import Transfer
from hopgate_client.sync.webhooks import Webhooks

_PART = 64 * 1024


class Hopgate:
    """
    A gateway, by its API.

    Args:
        url: the gateway's base URL, a path included.
        key: an API key; None: `http` authenticates.
        deadline_s: for a whole call, attempts and pauses included.
        timeout_s: for each step of an attempt: to connect, to send, to wait for a part of the answer.
        http: what sends requests. `close` leaves it open.
        clock, sleep, random, new_id: time, and what is random: of pauses, and of Idempotency-Keys.

    Raises:
        ValueError: the URL or the key cannot be one.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        retries: Retries = Retries(),  # noqa: B008
        deadline_s: float = 30.0,
        timeout_s: float = 10.0,
        http: httpx.Client | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        random: Callable[[], float] = random.random,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self.url = target.checked_url(url)
        self._authorization = None if key is None else f"Bearer {target.checked_key(key)}"
        self._retries, self._deadline_s, self._timeout_s = retries, deadline_s, timeout_s
        self._is_own = http is None
        self._http = httpx.Client() if http is None else http
        self._clock, self._sleep, self._random, self._new_id = clock, sleep, random, new_id
        self.links = Links(self)
        self.domains = Domains(self)
        self.tags = Tags(self)
        self.keys = Keys(self)
        self.blocks = Blocks(self)
        self.webhooks = Webhooks(self)
        transfer = Transfer(self)
        self.export_file, self.import_file = transfer.export_file, transfer.import_file

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, unless they are those of `http`."""
        if self._is_own:
            self._http.close()

    def me(self) -> models.Me:
        """Return what the key of this client is."""
        return models.read(models.Me, (self.send(Call("GET", "/me", repeat=Repeat.ALWAYS))).json())

    def stats(
        self,
        *,
        domain: str | None = None,
        tag: str | None = None,
        since: Time | None = None,
        until: Time | None = None,
        interval: str | None = None,
        time_zone: str | None = None,
        compare: bool | None = None,
        top: int | None = None,
    ) -> models.OverallStats:
        """
        Return what visits looked like: of all links, or of those of a domain or with a tag.

        By default in 24 hours; the rest as for a link.
        """
        asked = query(
            domain=domain,
            tag=tag,
            since=since,
            until=until,
            interval=interval,
            time_zone=time_zone,
            compare=compare,
            top=top,
        )
        call = Call("GET", "/stats", asked, repeat=Repeat.ALWAYS)
        return models.read(models.OverallStats, (self.send(call)).json())

    def stats_csv(
        self,
        *,
        domain: str | None = None,
        tag: str | None = None,
        since: Time | None = None,
        until: Time | None = None,
        interval: str | None = None,
        time_zone: str | None = None,
        compare: bool | None = None,
        top: int | None = None,
    ) -> str:
        """Return the same as CSV, a line for each number: section, start, value, visits."""
        asked = query(
            domain=domain,
            tag=tag,
            since=since,
            until=until,
            interval=interval,
            time_zone=time_zone,
            compare=compare,
            top=top,
            format="csv",
        )
        return (self.send(Call("GET", "/stats", asked, repeat=Repeat.ALWAYS))).body.decode()

    def invalidate(self, *slugs: str, domain: str | None = None) -> models.Invalidated:
        """Make every cache of the gateway read links again."""
        body = given(slugs=slugs, domain=domain)
        call = Call("POST", "/cache/invalidate", body=body, repeat=Repeat.ALWAYS)
        return models.read(models.Invalidated, (self.send(call)).json())

    def send(self, call: Call) -> Answer:
        """
        Make *call*, and return its answer.

        Raises:
            HopgateError: it failed, and may not be repeated, or not any more.
        """
        attempts, headers = self._attempts(call), self._headers(call)
        while True:
            try:
                answer = self._attempt(call, headers, attempts)
            except httpx.RequestError as error:
                pause = attempts.broken(error)
            else:
                if 200 <= answer.status < 300:
                    return answer
                pause = attempts.refused(answer)
            self._sleep(pause)

    @contextmanager
    def stream(self, call: Call) -> Iterator[Iterator[bytes]]:
        """Make *call*; give its answer in parts. It is repeated only until there is a first part."""
        attempts, headers = self._attempts(call), self._headers(call)
        while True:
            try:
                response = self._open(call, headers, attempts)
                if 200 <= response.status_code < 300:
                    break
                answer = self._read(response, attempts)
            except httpx.RequestError as error:
                pause = attempts.broken(error)
            else:
                pause = attempts.refused(answer)
            self._sleep(pause)
        try:
            yield self._parts(response, attempts)
        finally:
            response.close()

    def _parts(self, response: httpx.Response, attempts: Attempts) -> Iterator[bytes]:
        try:
            for part in response.iter_bytes(_PART):
                yield part
        except httpx.RequestError as error:
            raise attempts.cut_off(error) from error

    def _attempt(self, call: Call, headers: dict[str, str], attempts: Attempts) -> Answer:
        return self._read(self._open(call, headers, attempts), attempts)

    def _open(self, call: Call, headers: dict[str, str], attempts: Attempts) -> httpx.Response:
        request = self._http.build_request(
            call.method,
            f"{self.url}/api/v1{call.path}",
            params=list(call.query) or None,
            json=call.body,
            content=None if call.file is None else _chunks(call.file),
            headers=headers,
            timeout=attempts.timeout(),
        )
        # A redirect would take the key to another server.
        return self._http.send(request, stream=True, follow_redirects=False)

    def _read(self, response: httpx.Response, attempts: Attempts) -> Answer:
        parts = []
        try:
            for part in response.iter_bytes():
                attempts.check_time()
                parts.append(part)
        finally:
            response.close()
        return Answer(response.status_code, response.headers, b"".join(parts))

    def _attempts(self, call: Call) -> Attempts:
        return Attempts(
            call,
            self._retries,
            deadline_s=self._deadline_s,
            timeout_s=self._timeout_s,
            clock=self._clock,
            random=self._random,
        )

    def _headers(self, call: Call) -> dict[str, str]:
        headers = {"Accept": "application/json"} if call.file is None else target.file_headers(call.file)
        if self._authorization is not None:
            headers["Authorization"] = self._authorization
        if call.repeat is Repeat.BY_KEY:
            headers["Idempotency-Key"] = self._new_id()
        if call.if_version is not None:
            headers["If-Match"] = f'"{call.if_version}"'
        return headers


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while part := file.read(_PART):
        yield part
