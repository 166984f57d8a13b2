"""Shared limiters across forks, threads, event loops and ends of processes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop
from hopgate_limiter import Decision, Limiter, ManualClock, RedisSync

from tests.servers.proxy import SILENT, FaultProxy, Network
from tests.servers.redis import PrivateRedis

# It counts threads, and gives Redis tenths of a second.
pytestmark = pytest.mark.alone


@pytest.fixture
def server() -> Iterator[PrivateRedis]:
    with PrivateRedis() as server:
        yield server


def shared(server: PrivateRedis, rate: str = "1000/d", **options: object) -> Limiter:
    return Limiter(rate, sync=RedisSync(server.url, **{"timeout": 0.3, **options}))  # type: ignore[arg-type]


def sync_threads() -> int:
    count = 0
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it has just ended
            count += (task / "comm").read_text().startswith("hopgate-limiter")
    return count


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def eventually(is_so: Callable[[], bool], within_s: float = 20.0) -> None:
    until = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < until, "it never happened"
        gc.collect()
        time.sleep(0.02)


def run_script(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *arguments], capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    return done.stdout


FORK = """
import os, sys, time
from hopgate_limiter import Limiter, RedisSync

limiter = Limiter("400/d", sync=RedisSync(sys.argv[1], timeout=2.0, lease_ttl=20.0))
mine = 0
while limiter.stats().held < 20:
    mine += limiter.allow("k")
    time.sleep(0.001)
held = limiter.stats().held
children = []
for _ in range(4):
    reader, writer = os.pipe()
    if not (child := os.fork()):
        first = limiter.hit("k")
        count = first.allowed + sum(limiter.allow("k") for _ in range(500))
        os.write(writer, f"{first.source} {count} {limiter._ledger()[1]}".encode())
        limiter.close()
        os._exit(0)
    os.close(writer)
    children.append((child, reader))
reports = []
for child, reader in children:
    assert os.waitpid(child, 0)[1] == 0
    source, count, _ = os.read(reader, 100).decode().split()
    assert source == "redis", source
    reports.append(int(count))
assert limiter.stats().held == held, "a child has spent its parent's tokens"
while limiter.allow("k"):
    mine += 1
assert sum(reports) > 0
assert mine + sum(reports) <= 400, (mine, reports)
limiter.close()
print("fine")
"""


def test_forked_child_spends_its_own_tokens(server):
    """L10: the child holds no token of its parent's lease; it sends its own requests."""
    assert run_script(FORK, server.url) == "fine\n"


CLOSED_FIRST = """
import os, sys
from hopgate_limiter import Limiter, RedisSync

limiter = Limiter("400/d", sync=RedisSync(sys.argv[1], timeout=2.0))
assert limiter.hit("k").source == "redis"
if not (child := os.fork()):
    limiter.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert limiter.hit("other").source == "redis"
limiter.close()
print("fine")
"""


def test_forked_child_can_close_at_once(server):
    """The child has no sync thread to wait for."""
    assert run_script(CLOSED_FIRST, server.url) == "fine\n"


FORKS_UNDER_LOAD = """
import os, sys, threading, time
from hopgate_limiter import Limiter, RedisSync

limiter = Limiter("1000000/s", sync=RedisSync(sys.argv[1], timeout=0.5, lease_ttl=0.01))
is_over = False
def work(name):
    i = 0
    while not is_over:
        i += 1
        limiter.allow(f"{name}{i % 50}")
threads = [threading.Thread(target=work, args=(n,)) for n in "abc"]
for thread in threads:
    thread.start()
for _ in range(30):
    if not (child := os.fork()):
        limiter.hit("child")
        limiter.close()
        os._exit(0)
    until = time.monotonic() + 20
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        if time.monotonic() > until:
            os.kill(child, 9)
            sys.exit("a child hangs")
        time.sleep(0.001)
is_over = True
for thread in threads:
    thread.join()
print("fine")
"""


def test_forks_while_the_sync_thread_works(server):
    """A child inherits no lock held by another thread of its parent."""
    assert run_script(FORKS_UNDER_LOAD, server.url) == "fine\n"


@pytest.mark.parametrize("url", ["{url}", "redis://127.0.0.1:1/0"])
@pytest.mark.parametrize("end", ["", "sys.exit(3)", "raise SystemExit(3)", "os.kill(os.getpid(), 15)"])
def test_exit_with_a_running_sync_thread(server, url, end):
    script = f"""
import os, sys
from hopgate_limiter import Limiter, RedisSync
limiter = Limiter("10/s", sync=RedisSync({url.format(url=server.url)!r}))
limiter.allow("k")
{end}
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert done.returncode == {"": 0, "os.kill(os.getpid(), 15)": -15}.get(end, 3)
    # A Redis that is not there is reported, where no logging is set up to standard error.
    assert done.stderr == "" or ("127.0.0.1:1/" in url and done.stderr.startswith("limits under 'rl:'"))


def test_close_gives_back(server):
    with contextlib.closing(shared(server, "100/d")) as limiter:
        assert limiter.hit("k")
        eventually(lambda: limiter.stats().held > 0)
    granted, spent, returned, expired = limiter._ledger()
    assert granted > 0
    assert (returned, expired) == (granted - spent, 0)
    assert limiter.stats().held == 0
    assert not limiter.hit("k") or limiter.hit("k").source == "fallback"
    limiter.close()
    with contextlib.closing(shared(server, "100/d", mode="every_hit")) as other:
        assert other.hit("k", 99)


def test_idle_leases_are_given_back(server):
    limiter = shared(server, "100/d", lease_ttl=0.2)
    assert limiter.hit("k")
    eventually(lambda: limiter._ledger()[2] > 0)
    limiter.close()


@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_close_while_redis_is_down(server, fault):
    limiter = shared(server, timeout=0.1)
    limiter.hit("k")
    getattr(server, fault)()
    limiter.hit("k2")
    started = time.monotonic()
    limiter.close()
    assert time.monotonic() - started < 3.0
    server.resume()


def test_close_while_redis_is_slow(server):
    """close takes three timeouts at most, with any number of tokens to give back."""
    timeout_s, before = 1.0, sync_threads()
    with FaultProxy(server.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"
        sync = RedisSync(url, timeout=timeout_s, lease_ttl=60.0)
        limiter = Limiter("1000/d", sync=sync)
        # A late call would end the sharing for as long as leases last: small ones are in time anywhere.
        for first in range(0, 5000, 100):
            limiter.hit_many([(f"k{i}", 1) for i in range(first, first + 100)])
        eventually(lambda: limiter.stats().held > 5000, 60)
        proxy.become(Network(latency_s=0.4 * timeout_s))
        started = time.monotonic()
        limiter.close()
        assert time.monotonic() - started < 3 * timeout_s + 2.0
        assert limiter.stats().held > 0
        eventually(lambda: sync_threads() <= before)


def test_one_limiter_per_sync():
    sync = RedisSync("redis://localhost")
    Limiter("1/s", sync=sync, clock=ManualClock())
    with pytest.raises(ValueError, match="belongs to one limiter"):
        Limiter("1/s", sync=sync, clock=ManualClock())


def test_limiter_leaves_no_thread_or_descriptor(server):
    before = sync_threads()
    before_fds = descriptors()
    for _ in range(100):
        assert shared(server).hit("k").source == "redis"
    eventually(lambda: sync_threads() <= before)
    eventually(lambda: descriptors() <= before_fds)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_hit_async_in_successive_event_loops(server, run):
    """hit_async decides for every task of every loop, and leaves no descriptor open."""
    limiter = shared(server, "500/d", mode="every_hit", timeout=30.0)

    async def crowd() -> int:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(limiter.hit_async("k")) for _ in range(300)]
        return sum(task.result().allowed for task in tasks)

    before = descriptors()
    assert run(crowd()) == 300
    assert run(crowd()) == 200
    for _ in range(10):
        assert run(crowd()) == 0
    limiter.close()
    gc.collect()
    # One pipe per loop; of uvloop's, the last one lives on.
    assert descriptors() <= before + 2


async def test_cancelled_tasks(server):
    """A cancelled task takes no other task's decision."""
    limiter = shared(server, "500/d", mode="every_hit", timeout=30.0)
    tasks = [asyncio.ensure_future(limiter.hit_async("k")) for _ in range(200)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    decisions = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(
        isinstance(d, asyncio.CancelledError) or (isinstance(d, Decision) and d.allowed) for d in decisions
    )
    assert sum(not isinstance(d, BaseException) for d in decisions) >= 100
    limiter.close()


async def test_tasks_are_decided_while_redis_is_silent(server):
    with FaultProxy(server.port) as proxy:
        limiter = Limiter(
            "500/d", sync=RedisSync(f"redis://127.0.0.1:{proxy.port}", timeout=0.1, on_error="deny")
        )
        assert await limiter.hit_async("k")
        proxy.become(SILENT)
        async with asyncio.timeout(5):
            decisions = await asyncio.gather(*(limiter.hit_async(f"{i}") for i in range(100)))
        assert not any(decisions)
        assert {d.source for d in decisions} == {"fallback"}
        await asyncio.to_thread(limiter.close)


async def test_tasks_waiting_at_close_are_decided(server):
    limiter = shared(server, mode="every_hit", timeout=0.2)
    assert await limiter.hit_async("k")
    server.pause()
    tasks = [asyncio.ensure_future(limiter.hit_async(f"{i}")) for i in range(20)]
    await asyncio.sleep(0.01)
    closing = threading.Thread(target=limiter.close)
    closing.start()
    tasks += [asyncio.ensure_future(limiter.hit_async(f"{i}")) for i in range(20)]
    async with asyncio.timeout(10):
        await asyncio.gather(*tasks)
    await asyncio.to_thread(closing.join)
    server.resume()


def test_hit_async_is_decided_after_the_timeout():
    """No thread sends requests here, as if it were stuck: the call is decided without Redis."""
    sync = RedisSync("redis://127.0.0.1:1", timeout=0.01)
    limiter = Limiter("10/s", clock=ManualClock(), sync=sync)

    async def ask() -> list[str]:
        decisions = await asyncio.gather(*(limiter.hit_async("alice") for _ in range(20)))
        again = await limiter.hit_async("alice")
        return [decision.source for decision in (*decisions, again)]

    assert asyncio.run(asyncio.wait_for(ask(), 10)) == ["fallback"] * 21
