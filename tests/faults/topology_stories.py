"""
Faults of how servers are named, copied and split: a cluster, replicas, DNS, certificates.

The gateways and the worker of the stage run with other settings meanwhile; see `stories.py`.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import psycopg
from redis.crc import key_slot

from app.domain.link import Resolution, Slug
from app.wire import cache_key, decode_resolution
from tests.faults import drill
from tests.faults.drill import Fault, Timing
from tests.faults.faults import redis_full, worker_paused
from tests.faults.figures import quantile, stale_s
from tests.faults.journal import Kind, Operation, of_kind
from tests.faults.observer import stored
from tests.faults.stage import Stage
from tests.faults.teller import Teller
from tests.servers.certificates import Authority
from tests.servers.hopgate import Process, eventually
from tests.servers.ports import free_ports
from tests.servers.postgres import PostgresReplica
from tests.servers.redis import PrivateRedis
from tests.servers.redis_cluster import PrivateCluster

Figures = Mapping[str, float]
_LOAD = {"visits": 100.0, "creates": 10.0, "edits": 3.0, "warm": 100}
_TIMING = Timing(before_s=4.0, during_s=12.0, after_s=6.0)
_RECOVERY_S = 20.0


# --- Redis Cluster ---------------------------------------------------------------------


def cluster_failover(stage: Stage) -> Figures:
    """A primary of the cluster is killed, the one that gateways were told of; its replica takes over."""
    with PrivateCluster(replicas=1, node_timeout_ms=2000) as cluster:
        lost = range(cluster.first_slot(0), cluster.first_slot(1))
        with running_with(stage, HOPGATE_REDIS_URL=cluster.url):
            figures, due = _on_cluster(stage, cluster, _killed(cluster.nodes[0]))
            others = [op for op in due if _slot(op) not in lost]
            return {
                **figures,
                "other_shards_p99_s": quantile([op.took_s for op in others], 0.99),
                "other_shards_stale_s": stale_s([op for op in stage.history() if _slot(op) not in lost]),
                "other_shards_errors": sum(1 for op in others if op.status == 0 or op.status >= 500),
            }


def cluster_resharded(stage: Stage) -> Figures:
    """Slots move from one primary to another under load, and one of them takes its time (ASK)."""
    with PrivateCluster() as cluster, running_with(stage, HOPGATE_REDIS_URL=cluster.url):
        return _on_cluster(stage, cluster, _resharded(cluster))[0]


def _on_cluster(
    stage: Stage, cluster: PrivateCluster, fault: Fault
) -> tuple[dict[str, float], list[Operation]]:
    """Return the figures of a load that *fault* met, and the visits that were due during the fault."""
    due: list[Operation] = []
    fds: list[int] = []
    recovery: list[float] = []

    @contextmanager
    def watched(stage: Stage) -> Iterator[None]:
        fds.extend(_descriptors(stage))
        began = time.monotonic()
        with fault(stage), _recovery(stage, recovery):
            yield
            over = time.monotonic()
        due.extend(op for op in of_kind(stage.history(), Kind.VISIT) if began <= op.intent.due_at < over)

    outcomes = drill.run(stage, watched, _TIMING, **_LOAD)
    return {
        **outcomes.figures,
        "violations": len(outcomes.violations),
        "recovery_s": min(recovery, default=float("inf")),
        "fds_grown": max(after - before for before, after in zip(fds, _descriptors(stage), strict=True)),
        "cached_wrong": _cached_wrong(stage, cluster.values),
    }, due


def _slot(op: Operation) -> int:
    return int(key_slot(cache_key(Slug(op.slug or "")).encode()))


def _killed(node: PrivateRedis) -> Fault:
    @contextmanager
    def fault(_stage: Stage) -> Iterator[None]:
        node.kill()
        yield

    return fault


def _resharded(cluster: PrivateCluster, slots: int = 300) -> Fault:
    @contextmanager
    def fault(_stage: Stage) -> Iterator[None]:
        source, target = cluster.nodes[:2]
        taken = range(cluster.first_slot(1) - slots, cluster.first_slot(1))
        held = [slot for slot in taken if source.command("CLUSTER", "COUNTKEYSINSLOT", slot)][:3]
        unfinished = [cluster.move(slot, source, target, _keys(source, slot)) for slot in held]
        for slot in taken:
            if slot not in held:
                cluster.move(slot, source, target, _keys(source, slot))()
        yield
        for finish in unfinished:
            finish()

    return fault


def _keys(node: PrivateRedis, slot: int) -> list[bytes]:
    reply = node.command("CLUSTER", "GETKEYSINSLOT", slot, 1000)
    assert isinstance(reply, list)
    return reply


# --- PostgreSQL replicas ---------------------------------------------------------------


def lagging_replica(stage: Stage) -> Figures:
    """
    A replica lags by seconds, then by half a minute, then dies; Redis takes nothing on and no worker runs.

    So nobody but the store knows of changes, and gateways hear of none but their own.
    """
    url = stage.settings["HOPGATE_DATABASE_URL"]
    primary = stage.servers.postgres
    with ExitStack() as stack:
        replica = stack.enter_context(PostgresReplica(primary))
        there = url.replace(f":{primary.port}", f":{replica.port}")
        stack.enter_context(running_with(stage, HOPGATE_DATABASE_REPLICA_URLS=there))
        tell = stack.enter_context(Teller(stage))
        stack.enter_context(redis_full(stage))
        stack.enter_context(worker_paused(stage))
        seen: list[int] = []
        old = [0]

        def go_on(seconds: float) -> None:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                slug = tell.create()
                seen.extend(tell.visit(slug, gateway=gateway).status for gateway in (0, 1))
                tell.edit(slug)
                answer = tell.visit(slug)
                old[0] += answer.reply is None or answer.reply.location != _target(stage, slug)

        for _ in range(4):
            with _replay_paused(replica):
                go_on(4.0)
            go_on(1.5)
        asked = _look_ups(stage, "replica")
        with _replay_paused(replica):
            go_on(30.0)
        replica.kill()
        go_on(5.0)
        return {
            "visits": len(seen),
            "not_found": seen.count(404),
            "failed": sum(1 for status in seen if status != 302),
            "own_edits_missed": old[0],
            "answered_by_replica": asked,
        }


def _target(stage: Stage, slug: str) -> str:
    with psycopg.connect(stage.settings["HOPGATE_DATABASE_URL"]) as connection:
        row = connection.execute("SELECT long_url FROM links WHERE slug = %s", (slug,)).fetchone()
    assert row is not None
    return str(row[0])


@contextmanager
def _replay_paused(replica: PostgresReplica) -> Iterator[None]:
    with psycopg.connect(replica.url(), autocommit=True) as connection:
        connection.execute("SELECT pg_wal_replay_pause()")
        yield
        connection.execute("SELECT pg_wal_replay_resume()")


def _look_ups(stage: Stage, source: str) -> float:
    line = f'hopgate_look_ups_total{{source="{source}"}} '
    texts = [httpx.get(f"{gateway.url}/metrics", timeout=5).text for gateway in stage.gateways]
    return sum(
        float(found.removeprefix(line)) for text in texts for found in text.splitlines() if line in found
    )


# --- names and certificates ------------------------------------------------------------


def no_names() -> str:
    """Return why processes cannot be given an /etc of their own; nothing if they can."""
    done = subprocess.run(["unshare", "--mount", "true"], capture_output=True, text=True, check=False)
    return f"needs a mount namespace: {done.stderr.strip()}" if done.returncode else ""


def unresolvable(service: str) -> Callable[[Stage], Figures]:
    """The name of *service* is forgotten, then leads to where nobody listens, then is right again."""

    def story(stage: Stage) -> Figures:
        name = f"{service}.hopgate.test"
        with _hosts_of_its_own(stage, name) as hosts:

            @contextmanager
            def fault(stage: Stage) -> Iterator[None]:
                for line in ("", f"127.0.0.99 {name}\n"):
                    hosts.write_text(line)
                    stage.reset(service)
                    time.sleep(4.0)
                yield
                hosts.write_text(f"127.0.0.1 {name}\n")

            return _under_load(stage, fault)

    return story


def expired_certificate(stage: Stage) -> Figures:
    """Redis speaks TLS; its certificate expires while everybody connects anew, and is replaced."""
    directory = stage.directory / "certificates"
    directory.mkdir(exist_ok=True)
    authority = Authority(directory)
    good, expired = authority.certificate(days=1), authority.certificate(days=-1)
    (port,) = free_ports(1)
    tls = ["--tls-port", str(port), "--tls-auth-clients", "no", "--tls-cert-file", str(good)]
    tls += ["--tls-key-file", str(authority.key), "--tls-ca-cert-file", str(authority.authority)]
    settings = {
        "HOPGATE_REDIS_URL": f"rediss://localhost:{port}/0?ssl_ca_certs={authority.authority}",
        "SSL_CERT_FILE": str(authority.authority),
    }

    @contextmanager
    def fault(_stage: Stage) -> Iterator[None]:
        for certificate in (expired, good):
            server.config_set("tls-cert-file", str(certificate))
            server.command("CLIENT", "KILL", "TYPE", "normal")
            if certificate is expired:
                yield

    with PrivateRedis(*tls) as server, running_with(stage, **settings):
        figures = _under_load(stage, fault)
        return {**figures, "cached_wrong": _cached_wrong(stage, server.values)}


@contextmanager
def _hosts_of_its_own(stage: Stage, name: str) -> Iterator[Path]:
    """Give every process an /etc/hosts that can be written, where *name* is the one of a service."""
    service = name.partition(".")[0]
    hosts, order = stage.directory / "hosts", stage.directory / "nsswitch.conf"
    hosts.write_text(f"127.0.0.1 {name}\n")
    order.write_text("hosts: files\npasswd: files\ngroup: files\n")  # no resolver is asked
    for path in (hosts, order):
        path.chmod(0o644)
    bind = f"mount --bind {hosts} /etc/hosts && mount --bind {order} /etc/nsswitch.conf"
    private = ["unshare", "--mount", "sh", "-c", f'{bind} && exec "$@"', "sh"]
    variable = {"postgres": "DATABASE", "redis": "REDIS", "rabbitmq": "AMQP"}[service]
    variable = f"HOPGATE_{variable}_URL"

    def change(process: Process) -> None:
        process._arguments = [*private, *process._arguments]
        process._settings[variable] = process._settings[variable].replace("127.0.0.1", name)

    with _changed(stage, change):
        yield hosts


def _under_load(stage: Stage, fault: Fault) -> Figures:
    before = _processes(stage)
    recovery: list[float] = []

    @contextmanager
    def watched(stage: Stage) -> Iterator[None]:
        with fault(stage):
            yield
        with _recovery(stage, recovery):
            pass

    outcomes = drill.run(stage, watched, Timing(before_s=3.0, during_s=4.0, after_s=6.0), **_LOAD)
    return {
        **outcomes.figures,
        "violations": len(outcomes.violations),
        "crashes": len(before - _processes(stage)),
        "recovery_s": min(recovery, default=float("inf")),
    }


# --- what all of them need -------------------------------------------------------------


@contextmanager
def running_with(stage: Stage, **settings: str) -> Iterator[None]:
    """Run the gateways and the worker with *settings* instead of theirs, and as before afterwards."""

    def change(process: Process) -> None:
        process._settings.update(settings)

    with _changed(stage, change):
        yield


@contextmanager
def _changed(stage: Stage, change: Callable[[Process], None]) -> Iterator[None]:
    processes = [*stage.gateways, stage.worker]
    before = [(process._arguments, dict(process._settings)) for process in processes]
    for process in processes:
        process.stop()
    # What is cached now would be old when the first settings hold again.
    stage.servers.redis.flush()
    for process in processes:
        change(process)
        process.start()
    try:
        yield
    finally:
        for process, (arguments, settings) in zip(processes, before, strict=True):
            process.stop()
            process._arguments, process._settings = arguments, settings
        stage.servers.redis.flush()
        for process in processes:
            process.start()


@contextmanager
def _recovery(stage: Stage, recovery: list[float]) -> Iterator[None]:
    """Note in *recovery* how many seconds it takes until every gateway is well, breakers and all."""
    began = time.monotonic()
    time.sleep(1.5)  # what was found out before is not given any more

    def watch() -> None:
        with suppress(AssertionError):
            eventually(lambda: all(map(_is_well, stage.gateways)), _RECOVERY_S + 5)
            recovery.append(time.monotonic() - began)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _is_well(gateway) -> bool:
    with suppress(httpx.HTTPError):
        document = httpx.get(f"{gateway.url}/readyz", timeout=2).json()
        return document["status"] == "ok" and set(document["breakers"].values()) == {"closed"}
    return False


def _processes(stage: Stage) -> set[int]:
    return {stage.worker.pid, *(pid for gateway in stage.gateways for pid in stage.children(gateway.pid))}


def _descriptors(stage: Stage) -> list[int]:
    pids = [pid for gateway in stage.gateways for pid in stage.children(gateway.pid)]
    return [len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in [*pids, stage.worker.pid]]


def _cached_wrong(stage: Stage, values: Callable[[str], Mapping[str, bytes]]) -> int:
    """Count what is cached and not what is stored, once that stands still or half a minute has passed."""
    wrong = -1
    end = time.monotonic() + 30
    while wrong and time.monotonic() < end:
        held = values(cache_key(Slug("*")))
        links = stored(stage)
        expected = {cache_key(link.slug): Resolution.of(link) for link in links.values()}
        slugs = {cache_key(link.slug): link.slug for link in links.values()}
        wrong = sum(
            decode_resolution(slugs[key], value) != expected[key]
            for key, value in held.items()
            if key in expected
        )
        time.sleep(0.5)
    return wrong
