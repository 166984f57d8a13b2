"""Budgets, workers and fixtures of all suites. Servers start when a test first asks for them."""

from __future__ import annotations

import gc
import os
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from app.migrations import migrate
from app.ports import Store
from tests import budgets
from tests.servers import memory
from tests.servers.postgres import PrivatePostgres
from tests.servers.rabbitmq import PrivateRabbit
from tests.servers.redis import PrivateRedis
from tests.servers.redis_cluster import PrivateCluster

NOW = datetime(2030, 1, 31, 12, 0, 0, tzinfo=UTC)

# --- budgets: `make test` runs the profile ci, `make test-long` the profile long ----------------

# No deadline for an example: properties do not bound time, and other tests use the processor too. A
# change is judged by the same examples each time; the long tests look for new ones.
settings.register_profile(
    "ci",
    max_examples=budgets.STATED,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.register_profile("long", settings.get_profile("ci"), max_examples=budgets.LONG, derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

# Every `httpx.Client` would load all public authorities, which takes longer than most tests. None is needed.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = str(Path(__file__).parent)

# --- files: in memory where there is enough of it, unless TMPDIR or --basetemp name a place ------


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Choose where temporary files are, before the processes that share the tests start."""
    is_chosen = "TMPDIR" in os.environ or config.option.basetemp
    if hasattr(config, "workerinput") or is_chosen or (place := memory.make_place()) is None:
        return
    os.environ["TMPDIR"] = str(place)
    tempfile.tempdir = None
    config.option.basetemp = str(place / "t")


# --- workers: several processes share the tests, file by file -----------------------------------


def pytest_collection() -> None:
    """Looking for garbage while thousands of tests are made takes a sixth of that time, and finds none."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Look for garbage again, less often, except in what lives as long as the process."""
    gc.freeze()
    gc.set_threshold(10_000)
    gc.enable()


# These folders compute; the others wait for servers most of the time. At any time some of both run.
_COMPUTING = ("native", "unit")
# These take longest. They begin first, and the other files fill the gaps.
_LONGEST = (
    "faults/test_quick_matrix.py",
    "native/test_shared_sentinel.py",
    "native/test_shared_regressions.py",
    "integration/test_webhooks_full_stack.py",
    "integration/test_webhooks.py",
    "contract/test_link_cache_cluster.py",
    "contract/test_link_cache_sentinel.py",
    "contract/test_several_brokers.py",
    "integration/test_sentinel.py",
    "integration/test_transfers.py",
    "integration/test_events.py",
    "integration/test_polled_full_stack.py",
    "integration/test_bulk_stack.py",
    "integration/test_tracing.py",
    "integration/test_metrics.py",
    "integration/test_every_command.py",
    "integration/test_statistics_full_stack.py",
    "integration/test_clicks.py",
    "contract/test_link_replica.py",
    "contract/test_store_epoch.py",
    "contract/test_event_bus_rabbitmq_outages.py",
    "integration/test_outages.py",
    "integration/test_full_stack.py",
    "integration/test_compose_commands.py",
    "integration/test_repair_commands.py",
    "integration/test_prometheus.py",
    "integration/test_console_readable.py",
    "integration/test_console_page.py",
    "integration/test_console_hostile.py",
    "native/test_shared_cluster.py",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """
    Put the longest files first, and give each file to one worker; all of `faults`, for their servers.

    A test that names its group stays in that.

    Raises:
        pytest.UsageError: a test is marked `alone` in another file than it stands in, so the run of those
            tests, which reads the files that have the mark, would lose it.
    """
    for path in {item.path for item in items if item.get_closest_marker("alone")}:
        if "mark.alone" not in path.read_text():
            raise pytest.UsageError(f"{path}: `mark.alone` must stand in the file of the tests")
    ranks = _ranks(list(dict.fromkeys(item.path for item in items)))
    items.sort(key=lambda item: ranks[item.path])
    if hasattr(config, "workerinput"):
        for item in items:
            if item.get_closest_marker("xdist_group"):
                continue
            folder = item.path.parent.name
            item.add_marker(pytest.mark.xdist_group(folder if folder == "faults" else item.path.stem))


def _ranks(files: list[Path]) -> dict[Path, float]:
    """Return where in the order of all tests those of each file come. The last ones are short."""
    longest = [path for name in _LONGEST if (path := Path(__file__).parent / name) in files]
    computing = [path for path in files if path.parent.name in _COMPUTING and path not in longest]
    waiting = [path for path in files if path not in longest and path not in computing]
    # Servers of most of the longest files start beside tests that compute.
    first, others = longest[:3], longest[3:]
    first += [path for pair in zip(computing, others, strict=False) for path in pair]
    first += [path for path in longest if path not in first]
    computing = [path for path in computing if path not in first]
    return {
        **{path: place / len(computing) for place, path in enumerate(computing)},
        **{path: 0.9 * place / len(waiting) for place, path in enumerate(waiting)},
        **{path: place - len(first) for place, path in enumerate(first)},
    }


# --- servers and clocks --------------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgres() -> Iterator[PrivatePostgres]:
    # A process of its own would look through each of a hundred databases once a minute.
    with PrivatePostgres(settings={"autovacuum": "off"}) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[PrivateRedis]:
    with PrivateRedis() as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[PrivateCluster]:
    with PrivateCluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[PrivateRabbit]:
    with PrivateRabbit() as server:
        yield server


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite database: a copy takes a tenth of the time of its migrations."""
    path = tmp_path_factory.mktemp("template") / "hopgate.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
async def embedded_store(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[Store]:
    """An empty SQLite store: the fake of unit tests is the adapter that ships."""
    from app.adapters.sqlite.store import SqliteStore

    path = tmp_path / "hopgate.db"
    shutil.copy(sqlite_template, path)
    store = await SqliteStore.open(path)
    yield store
    await store.aclose()


@pytest.fixture
def choice() -> Callable[[str], str]:
    """Return a function like `secrets.choice` that picks the same characters in every run."""
    return random.Random(0).choice


class ManualTime:
    """A clock that stands still; tests set `now`."""

    def __init__(self, start: float = 1000.0) -> None:
        self.now = start

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def monotonic() -> ManualTime:
    return ManualTime()
