"""A private Prometheus with the shipped configuration, and promtool."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.servers.hopgate import Process
from tests.servers.ports import free_ports

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "prometheus"
_PLACES = "/usr/bin:/usr/local/bin"
_START_TIMEOUT_S = 30.0
_OFTEN = "2s"


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_PLACES}")
    if found is None:
        raise RuntimeError(f"{name} was not found: install the package prometheus")
    return found


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `promtool ARGUMENTS` to its end."""
    return subprocess.run([_program("promtool"), *arguments], capture_output=True, text=True, timeout=60)


class PrivatePrometheus(Process):
    """
    `with PrivatePrometheus(directory, targets) as server:` runs `deploy/prometheus` on a free port.

    Jobs, labels and expressions are those that ship. It scrapes and evaluates every two seconds, and
    alerts fire after a second.

    Args:
        targets: host and port of what is scraped, by the name of the job; other jobs are left out.
    """

    def __init__(self, directory: Path, targets: Mapping[str, str]) -> None:
        self.port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self.directory = directory / f"prometheus-{self.port}"
        self.directory.mkdir()
        self._write_configuration(targets)
        arguments = [
            _program("prometheus"),
            f"--config.file={self.directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]
        super().__init__(arguments, {}, self.directory / "output.log")

    def start(self) -> None:
        super().start()
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._is_ready():
            self.check_alive()
            assert time.monotonic() < deadline, self.output
            time.sleep(0.05)

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return the labels and the present value of each series; AssertionError if it is invalid."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=10).json()
        assert answer["status"] == "success", f"{expression}: {answer.get('error')}"
        assert not answer.get("warnings"), answer
        assert answer["data"]["resultType"] == "vector", expression
        return [(one["metric"], float(one["value"][1])) for one in answer["data"]["result"]]

    def alerts(self) -> list[dict[str, Any]]:
        """Return the alerts that are pending or fire."""
        answer = httpx.get(f"{self.url}/api/v1/alerts", timeout=10).raise_for_status().json()
        found: list[dict[str, Any]] = answer["data"]["alerts"]
        return found

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/-/ready", timeout=1).status_code == 200
        except httpx.HTTPError:
            return False

    def _write_configuration(self, targets: Mapping[str, str]) -> None:
        config = yaml.safe_load((CONFIGURATION / "prometheus.yml").read_text())
        config["global"] = {
            "scrape_interval": _OFTEN,
            "scrape_timeout": _OFTEN,
            "evaluation_interval": _OFTEN,
        }
        jobs = {job["job_name"] for job in config["scrape_configs"]}
        assert targets.keys() <= jobs
        config["scrape_configs"] = [
            {"job_name": name, "static_configs": [{"targets": [target]}]} for name, target in targets.items()
        ]
        [name] = config["rule_files"]
        rules = yaml.safe_load((CONFIGURATION / name).read_text())
        for group in rules["groups"]:
            for rule in group["rules"]:
                rule["for"] = "1s"
        (self.directory / name).write_text(yaml.safe_dump(rules))
        (self.directory / "prometheus.yml").write_text(yaml.safe_dump(config))
