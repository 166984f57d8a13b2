"""Host names that do not resolve, and a certificate that expires."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.harness import drill
from tests.faults.harness.drill import Fault, Figures, Timing
from tests.faults.harness.reconfigured import changed, running_with
from tests.faults.harness.recovery import LOAD, cached_wrong, processes, recovery_noted
from tests.faults.harness.stage import Stage
from tests.servers.certificates import Authority
from tests.servers.hopgate import Process
from tests.servers.ports import free_ports
from tests.servers.redis import PrivateRedis


def mount_namespace_missing() -> str:
    """Return why this machine cannot create a mount namespace; empty if it can."""
    done = subprocess.run(["unshare", "--mount", "true"], capture_output=True, text=True, check=False)
    return f"needs a mount namespace: {done.stderr.strip()}" if done.returncode else ""


def unresolvable(service: str) -> Callable[[Stage], Figures]:
    """The name of *service* does not resolve, then resolves to a closed port, then is correct again."""

    def story(stage: Stage) -> Figures:
        name = f"{service}.hopgate.test"
        with _private_hosts_file(stage, name) as hosts:

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
    """Redis uses TLS; its certificate expires, every client reconnects, and the certificate is replaced."""
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
        return {**figures, "cached_wrong": cached_wrong(stage, server.values)}


@contextmanager
def _private_hosts_file(stage: Stage, name: str) -> Iterator[Path]:
    """Give every process of Hopgate a private /etc/hosts, and use *name* in the URL of its service."""
    service = name.partition(".")[0]
    hosts, order = stage.directory / "hosts", stage.directory / "nsswitch.conf"
    hosts.write_text(f"127.0.0.1 {name}\n")
    order.write_text("hosts: files\npasswd: files\ngroup: files\n")  # no DNS
    for path in (hosts, order):
        path.chmod(0o644)
    bind = f"mount --bind {hosts} /etc/hosts && mount --bind {order} /etc/nsswitch.conf"
    private = ["unshare", "--mount", "sh", "-c", f'{bind} && exec "$@"', "sh"]
    variable = {"postgres": "DATABASE", "redis": "REDIS", "rabbitmq": "AMQP"}[service]
    variable = f"HOPGATE_{variable}_URL"

    def change(process: Process) -> None:
        process._arguments = [*private, *process._arguments]
        process._settings[variable] = process._settings[variable].replace("127.0.0.1", name)

    with changed(stage, change):
        yield hosts


def _under_load(stage: Stage, fault: Fault) -> Figures:
    before = processes(stage)
    recovery: list[float] = []

    @contextmanager
    def watched(stage: Stage) -> Iterator[None]:
        with fault(stage):
            yield
        with recovery_noted(stage, recovery):
            pass

    outcomes = drill.run(stage, watched, Timing(before_s=3.0, during_s=4.0, after_s=6.0), **LOAD)
    return {
        **outcomes.figures,
        "violations": len(outcomes.violations),
        "crashes": len(before - processes(stage)),
        "recovery_s": min(recovery, default=float("inf")),
    }
