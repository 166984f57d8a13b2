"""The path of a newcomer: `make run`, first links, then the same links on PostgreSQL, Redis and RabbitMQ."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import httpx
import pytest

import app
from tests.servers.hopgate import Gateway, Worker, hopgate
from tests.servers.postgres import PrivatePostgres
from tests.servers.rabbitmq import PrivateRabbit
from tests.servers.redis import PrivateRedis

ROOT = Path(app.__file__).parent.parent
URLS = ("HOPGATE_DATABASE_URL", "HOPGATE_REDIS_URL", "HOPGATE_AMQP_URL")
TARGET = "https://example.com/a/long/path?with=query"
TITLE = '=1+1, "quoted" ☃'
LONGEST = "https://example.com/" + "a" * 8172


def test_make_run_is_the_command_that_the_path_starts_with():
    # A make that runs the tests would pass its flags and level on.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--dry-run", "run"]
    done = subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == ".venv/bin/hopgate serve"
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"hopgate": "app.cli:main"}


def test_commands_of_the_path_are_documented():
    words = " ".join((ROOT / "README.md").read_text().split())

    for command in (
        "make services",
        "hopgate links export --format csv --output links.csv",
        "hopgate migrate",
        "hopgate links import links.csv",
        *URLS,
    ):
        assert command in words


def created(url: str, key: str, **fields: object) -> str:
    """Create a link as the printed curl does; return its slug."""
    answer = httpx.post(
        f"{url}/api/v1/links",
        headers={"Authorization": f"Bearer {key}"},
        json={"long_url": TARGET, **fields},
    )
    assert answer.status_code == 201, answer.text
    slug = answer.json()["slug"]
    assert answer.json()["short_url"] == f"{url}/{slug}"
    return str(slug)


@pytest.mark.services
@pytest.mark.timeout(120)
def test_first_links_are_taken_along_to_services(
    tmp_path: Path, postgres: PrivatePostgres, redis_server: PrivateRedis, rabbitmq: PrivateRabbit
):
    fresh = {"HOPGATE_DATA_DIR": str(tmp_path / "data")}
    with Gateway(fresh, tmp_path) as embedded:
        [curl] = re.findall(
            r"curl -i (\S+)/api/v1/links .*\n\s+-H 'Authorization: Bearer (hg_\S+)'", embedded.output
        )
        assert curl[0] == embedded.url
        key = curl[1]
        targets = {
            created(embedded.url, key): TARGET,
            created(embedded.url, key, slug="m"): TARGET,
            created(embedded.url, key, slug="s" * 128, long_url=LONGEST): LONGEST,
            created(
                embedded.url, key, slug="full", long_url="https://münchen.de/ü", redirect_code=307,
                title=TITLE, tags=["a", "b,c"], max_visits=5, expires_at="2040-01-31T12:00:00Z",
            ): "https://xn--mnchen-3ya.de/%C3%BC",
        }  # fmt: skip
        assert httpx.get(f"{embedded.url}/m").headers["location"] == TARGET
    file = tmp_path / "links.csv"
    exported = hopgate(fresh, "links", "export", "--format", "csv", "--output", str(file))
    assert exported.returncode == 0, exported.stderr

    urls = (postgres.create_database(migrated=False), redis_server.url, rabbitmq.add_vhost("newcomer"))
    redis_server.flush()
    services = {**fresh, **dict(zip(URLS, urls, strict=True)), "HOPGATE_DRAIN_DELAY_S": "0"}
    for command in (("migrate",), ("links", "import", str(file)), ("keys", "create", "newcomer")):
        done = hopgate(services, *command)
        assert done.returncode == 0, done.stderr
    with Gateway(services, tmp_path) as gateway, Worker(services, tmp_path):
        for slug, target in targets.items():
            visited = httpx.get(f"{gateway.url}/{slug}")
            code = 307 if slug == "full" else 302
            assert (visited.status_code, visited.headers.get("location")) == (code, target)
        # The key that was created for the new store; that of the embedded one is none there.
        headers = {"Authorization": f"Bearer {done.stdout.strip()}"}
        link = httpx.get(f"{gateway.url}/api/v1/links/full", headers=headers).json()
        assert (link["title"], link["tags"], link["max_visits"]) == (TITLE, ["a", "b,c"], 5)
        assert link["expires_at"] == "2040-01-31T12:00:00Z"
