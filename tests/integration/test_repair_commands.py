"""`hopgate dlq`, `hopgate check` and `hopgate links export` on real servers."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from urllib.parse import urlsplit

import aio_pika
import pytest
from aio_pika.abc import FieldValue

from app.adapters.rabbitmq.dead_letters import DeadLetters
from app.domain.events import ClicksCounted, LinkChanged
from app.domain.link import Slug
from app.wire import (
    ATTEMPT_HEADER,
    CACHE_QUEUE,
    CLICKS_QUEUE,
    DEAD_QUEUE,
    EVENTS_EXCHANGE,
    cache_key,
    dead_queue,
    decode_event,
    encode_event,
)
from tests.conftest import NOW
from tests.servers.hopgate import Worker, eventually, hopgate, make_store
from tests.servers.proxy import FaultProxy, Network
from tests.servers.stack import stack_settings

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def settings(postgres, redis_server, rabbitmq, tmp_path_factory) -> dict[str, str]:
    settings = stack_settings(postgres, redis_server, rabbitmq)
    # A worker declares the queues.
    with Worker(settings, tmp_path_factory.mktemp("repair")) as worker:
        eventually(lambda: hopgate(settings, "doctor").returncode == 0, 30, "everything is connected")
        worker.stop()
    return settings


def with_channel(settings, work):
    async def run():
        connection = await aio_pika.connect(settings["HOPGATE_AMQP_URL"])
        async with connection:
            return await work(await connection.channel())

    return asyncio.run(run())


def bury(settings, *bodies: bytes) -> None:
    """Put *bodies* alone into the dead-letter queue, as a worker does after the last attempt."""

    async def work(channel) -> None:
        queue = await channel.get_queue(DEAD_QUEUE)
        await queue.purge()
        exchange = await channel.get_exchange(EVENTS_EXCHANGE)
        for body in bodies:
            headers: dict[str, FieldValue] = {
                ATTEMPT_HEADER: 6,
                "x-hopgate-reason": "ValueError: no",
                "traceparent": "00-abc",
            }
            await exchange.publish(aio_pika.Message(body, headers=headers), DEAD_QUEUE)

    with_channel(settings, work)


def taken(settings, name: str) -> list:
    async def work(channel):
        queue, messages = await channel.get_queue(name), []
        while (message := await queue.get(no_ack=True, fail=False)) is not None:
            messages.append(message)
        return messages

    return with_channel(settings, work)


def event(n: int) -> bytes:
    return encode_event(LinkChanged(Slug(f"slug-{n}"), n + 1))


def test_listed_dead_letters_stay(settings):
    bury(settings, event(1), b"\xff nonsense", event(2))

    for _ in range(3):
        listed = hopgate(settings, "dlq", "list", "--limit", "2")
        assert listed.returncode == 0, listed.stderr
        lines = listed.stdout.splitlines()
        assert len(lines) == 3
        assert lines[-1] == "3 dead letters"
    assert "6 attempts" in listed.stdout

    assert sorted(message.body for message in taken(settings, DEAD_QUEUE)) == sorted(
        [event(1), b"\xff nonsense", event(2)]
    )


def test_often_listed_dead_letter_is_renewed(settings):
    """RabbitMQ 4 drops a message that was requeued 20 times, and listing must not lose any."""
    bury(settings, event(1))

    async def requeue_often(channel) -> None:
        queue = await channel.get_queue(DEAD_QUEUE)
        for _ in range(12):
            message = await queue.get(timeout=5)
            await message.nack(requeue=True)

    with_channel(settings, requeue_often)
    assert hopgate(settings, "dlq", "list").returncode == 0

    [message] = taken(settings, DEAD_QUEUE)
    assert message.headers.get("x-delivery-count", 0) == 0
    assert message.headers[ATTEMPT_HEADER] == 6
    assert message.headers["x-hopgate-reason"] == "ValueError: no"


def test_replay_returns_readable_letters_to_the_queue(settings):
    bury(settings, *(event(n) for n in range(250)), b"nonsense")

    replayed = hopgate(settings, "dlq", "replay")

    assert replayed.returncode == 0, replayed.stderr
    assert replayed.stdout == "250 replayed, 1 left: they cannot be read\n"
    work = taken(settings, CACHE_QUEUE)
    expected = {decode_event(event(n)) for n in range(250)}
    assert {decode_event(message.body) for message in work} == expected
    assert all(ATTEMPT_HEADER not in message.headers for message in work)
    assert work[0].headers["traceparent"] == "00-abc"
    assert work[0].delivery_mode == aio_pika.DeliveryMode.PERSISTENT
    assert [message.body for message in taken(settings, DEAD_QUEUE)] == [b"nonsense"]


def test_drop_of_a_large_batch_is_complete(settings):
    """Closing a channel loses the acknowledgements that its queue has not applied."""
    bury(settings, *(event(n) for n in range(1000)))

    async def drop_at_once() -> None:
        async with DeadLetters.open(settings["HOPGATE_AMQP_URL"], CACHE_QUEUE) as letters:
            await letters.drop([letter async for letter in letters.read(1000)])

    asyncio.run(drop_at_once())
    assert taken(settings, DEAD_QUEUE) == []


def test_dead_click_batches_are_replayed_to_their_queue(settings):
    """Their clicks are kept nowhere else."""
    batch = ClicksCounted(
        "ab" * 16, NOW.replace(minute=0, second=0, microsecond=0), {Slug("one"): 3, Slug("two"): 4}
    )

    async def work(channel) -> None:
        exchange = await channel.get_exchange(EVENTS_EXCHANGE)
        body = encode_event(batch)
        await exchange.publish(aio_pika.Message(body, headers={ATTEMPT_HEADER: 6}), dead_queue(CLICKS_QUEUE))

    with_channel(settings, work)
    listed = hopgate(settings, "dlq", "list")
    replayed = hopgate(settings, "dlq", "replay")

    assert "7 clicks of 2 links" in listed.stdout
    assert listed.stdout.splitlines()[-1] == "1 dead letter"
    assert replayed.stdout == "1 replayed\n"
    [message] = taken(settings, CLICKS_QUEUE)
    assert decode_event(message.body) == batch
    assert taken(settings, dead_queue(CLICKS_QUEUE)) == []


def test_replay_to_a_missing_queue_loses_nothing(settings):
    """A letter is removed only after its copy is confirmed."""
    bury(settings, event(1))
    with_channel(settings, lambda channel: channel.queue_delete(CACHE_QUEUE))

    replayed = hopgate(settings, "dlq", "replay")

    assert replayed.returncode == 1
    assert replayed.stderr.splitlines()[-1].startswith("hopgate: rabbitmq is unavailable")
    assert [message.body for message in taken(settings, DEAD_QUEUE)] == [event(1)]
    left = hopgate(settings, "dlq", "list")
    assert left.stdout == "0 dead letters\n"


def test_drop_asks_for_confirmation(settings):
    bury(settings, event(1), b"nonsense")

    refused = hopgate(settings, "dlq", "drop")
    unreadable = hopgate(settings, "dlq", "drop", "--unreadable", "--yes")
    rest = hopgate(settings, "dlq", "drop", "--yes")

    assert refused.returncode == 1
    assert [unreadable.stdout, rest.stdout] == ["1 dropped\n", "1 dropped\n"]
    assert taken(settings, DEAD_QUEUE) == []


def test_absent_broker_is_one_line(settings):
    away = {**settings, "HOPGATE_AMQP_URL": "amqp://me:hush@127.0.0.1:1/"}
    for command in ("list", "replay"):
        done = hopgate(away, "dlq", command)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "hush" not in done.stderr


def test_doctor_gives_the_reason_of_each_dependency_in_one_line(settings):
    """A driver logs each attempt to connect; the table has the reason once."""
    parts = urlsplit(settings["HOPGATE_AMQP_URL"])
    wrong = parts._replace(netloc=f"me:hush@{parts.netloc.rpartition('@')[2]}").geturl()
    away = {"HOPGATE_AMQP_URL": wrong, "HOPGATE_DATABASE_URL": "postgresql://u:hush@127.0.0.1:1/d"}

    done = hopgate({**settings, **away}, "doctor")

    bad = {line.split()[1]: line for line in done.stdout.splitlines() if line.startswith("BAD")}
    assert set(bad) == {"store", "bus"}
    assert "ACCESS_REFUSED" in bad["bus"]
    assert "refused" in bad["store"]
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "hush" not in done.stdout + done.stderr


def test_embedded_mode_refuses_repair_commands(tmp_path):
    for command in (("dlq", "list"), ("dlq", "replay"), ("dlq", "drop", "--yes"), ("check",)):
        done = hopgate({"HOPGATE_DATA_DIR": str(tmp_path)}, *command)
        assert done.returncode == 1
        assert "an embedded gateway" in done.stderr
        assert done.stderr.count("\n") == 1


def test_check_bears_a_slow_cache(settings, redis_server):
    """Nothing is redirected meanwhile: a repair may wait longer than a redirect does."""
    assert hopgate(settings, "links", "create", "https://example.com/", "--slug", "slow").returncode == 0
    redis_server.command("SET", cache_key(Slug("slow")), b'9|{"url":"https://evil.example/"}')
    with FaultProxy(redis_server.port) as proxy:
        proxy.become(Network(latency_s=0.15))
        slow = {**settings, "HOPGATE_REDIS_URL": f"redis://127.0.0.1:{proxy.port}/0"}

        repaired = hopgate(slow, "check", "--repair")

    assert repaired.returncode == 0, repaired.stderr
    assert "1 wrong" in repaired.stdout


def test_check_finds_and_repairs_wrong_entries(settings, redis_server, tmp_path):
    for slug in ("right", "stale", "ahead", "different"):
        assert hopgate(settings, "links", "create", "https://example.com/", "--slug", slug).returncode == 0
    redis_server.flush()
    with Worker(settings, tmp_path) as worker:
        keys = [cache_key(Slug(slug)) for slug in ("right", "different")]
        try:
            eventually(lambda: redis_server.command("EXISTS", *keys) == 2, 60, "they are cached")
        except AssertionError as error:
            raise AssertionError(worker.output) from error
        clean = hopgate(settings, "check")
        assert clean.returncode == 0, clean.stdout
        for slug, value in (
            ("stale", b'0|{"url":null}'),
            ("ahead", b'99|{"url":"https://evil.example/"}'),
            ("different", b'1|{"url":"https://evil.example/"}'),
            ("phantom", b'1|{"url":"https://evil.example/"}'),
        ):
            redis_server.command("SET", cache_key(Slug(slug)), value)

        found = hopgate(settings, "check")
        assert found.returncode == 1
        wrong = {line.split()[0]: line.split()[1].rstrip(":") for line in found.stdout.splitlines()[:-1]}
        assert wrong == {slug: slug for slug in ("stale", "ahead", "different", "phantom")}
        assert found.stdout.splitlines()[-1].endswith("4 wrong")

        assert hopgate(settings, "check", "--repair").returncode == 0
        eventually(
            lambda: all(
                (redis_server.command("GET", cache_key(Slug(slug))) or b"").startswith(b"2|")
                for slug in ("stale", "ahead", "different")
            ),
            30,
            "the worker wrote them again",
        )
        assert redis_server.command("EXISTS", cache_key(Slug("phantom"))) == 0
        assert hopgate(settings, "check").returncode == 0


def test_export_can_be_imported(tmp_path):
    settings = {"HOPGATE_DATA_DIR": str(tmp_path / "one"), "HOPGATE_BASE_URL": "http://hop.example"}
    make_store(settings)
    source = tmp_path / "urls.txt"
    source.write_text("\n".join(f"https://example.com/{n}" for n in range(2100)))
    assert hopgate(settings, "links", "import", str(source)).returncode == 0
    made = hopgate(settings, "links", "create", "https://example.com/x", "--slug", "mine", "--title", "=1+1")
    assert made.returncode == 0

    lines = hopgate(settings, "links", "export").stdout.splitlines()
    done = hopgate(settings, "links", "export", "--format", "csv", "--output", str(tmp_path / "out.csv"))

    links = [json.loads(line) for line in lines]
    assert len({link["slug"] for link in links}) == 2101
    assert links[-1]["short_url"] == "http://hop.example/mine"
    assert "2,101 links exported" in done.stderr.splitlines()
    text = (tmp_path / "out.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {row["slug"]: row["long_url"] for row in rows} == {
        link["slug"]: link["long_url"] for link in links
    }
    assert rows[-1]["title"] == "'=1+1"  # inert in a spreadsheet

    again = {**settings, "HOPGATE_DATA_DIR": str(tmp_path / "two")}
    make_store(again)
    imported = hopgate(again, "links", "import", str(tmp_path / "out.csv"))
    assert "2,101 links imported, 0 lines refused" in imported.stderr
    assert hopgate(again, "links", "export", "--format", "csv").stdout == text


def test_unwritable_export_is_one_line(tmp_path):
    settings = {"HOPGATE_DATA_DIR": str(tmp_path / "data")}
    make_store(settings)
    for arguments in (("--output", str(tmp_path / "no" / "file")), ("--format", "xml")):
        done = hopgate(settings, "links", "export", *arguments)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
