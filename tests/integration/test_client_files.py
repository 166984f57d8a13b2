"""Files of links between two gateways: by both clients, and by the command line elsewhere."""

from __future__ import annotations

import io
import json

import pytest
from hopgate_client import errors, models

from tests.integration.api_calls import fresh_slug
from tests.integration.client_calls import Clients
from tests.integration.conftest import EmbeddedGateway
from tests.servers.hopgate import UNLIMITED, make_key

TARGET = "https://example.com/page"
# What a link has of the gateway that it is on.
OWN = ("version", "updated_at")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A gateway beside `embedded`, with the same base URL."""
    directory = tmp_path_factory.mktemp("other")
    settings = {
        "HOPGATE_DATA_DIR": str(directory / "data"),
        "HOPGATE_BASE_URL": "http://hop.example",
        **UNLIMITED,
    }
    with EmbeddedGateway(settings, directory) as running:
        yield running


@pytest.fixture(scope="module")
def other_key(other):
    return make_key(other.settings)


@pytest.fixture(scope="module", params=["sync", "async"])
def clients(request):
    made = Clients(is_async=request.param == "async")
    yield made
    made.close()


@pytest.fixture(scope="module")
def source(clients, embedded, admin_key):
    return clients(embedded.url, admin_key)


@pytest.fixture(scope="module")
def target(clients, other, other_key):
    return clients(other.url, other_key)


def create_links(gateway, tag):
    """Create links that have what files could lose; return them without owners, whose keys are elsewhere."""
    made = [
        gateway.links.create(
            TARGET, tags=[tag, "ä"], title='"a", b\\n', expires_in="30d", max_visits=7, enabled=False
        ),
        gateway.links.create(
            TARGET, tags=[tag], utm_source="mail", forward_query=True, override_query=True, robots="noindex"
        ),
        gateway.links.create(
            TARGET, tags=[tag], expired_url=f"{TARGET}/over", external_id=fresh_slug(), redirect_code=301
        ),
    ]
    return [gateway.links.change(one.slug, owner=None) for one in made]


def without_own(link):
    return {name: getattr(link, name) for name in link.__dataclass_fields__ if name not in OWN}


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_exported_links_are_imported_whole(source, target, form):
    tag = fresh_slug()
    made = create_links(source, tag)

    file = b"".join(source.export_file(form=form, tag=tag))
    seen: list[models.ImportProgress] = []
    report = target.import_file(io.BytesIO(file), on_progress=seen.append)

    assert (report.summary.read, report.summary.imported, report.summary.refused) == (3, 3, 0)
    assert report.summary.succeeded
    assert report.refused == ()
    assert (seen[-1].bytes, seen[-1].of, seen[-1].imported) == (len(file), len(file), 3)
    for one in made:
        assert without_own(target.links.get(one.slug)) == without_own(one)
    if form == "csv":  # which has no versions
        assert b"".join(target.export_file(form=form, tag=tag)) == file
    again = target.import_file(io.BytesIO(file))
    assert (again.summary.imported, again.summary.same) == (0, 3)


def test_dry_run_stores_nothing(source, target):
    tag = fresh_slug()
    create_links(source, tag)
    file = io.BytesIO(b"".join(source.export_file(tag=tag)))

    report = target.import_file(file, dry_run=True)

    assert (report.summary.dry_run, report.summary.imported) == (True, 3)
    assert [*target.links.list(tag=tag)] == []
    assert target.import_file(file).summary.imported == 3


def test_refused_rows_are_told_and_stop_no_other(source, target):
    slug, taken = fresh_slug(), fresh_slug()
    target.links.create(TARGET, slug=taken)
    lines = f"long_url,slug\n{TARGET},{slug}\nnowhere,\n{TARGET}/2,{taken}\n".encode()

    report = target.import_file(io.BytesIO(lines), form="csv")

    assert not report.summary.succeeded
    assert (report.summary.imported, report.summary.refused) == (1, 2)
    assert {(one.line, one.errors[0].field) for one in report.refused} == {(3, "long_url"), (4, "slug")}
    assert target.links.get(slug).long_url == TARGET
    assert target.import_file(io.BytesIO(lines), form="csv", allow_refused=True).summary.succeeded
    changed = target.import_file(io.BytesIO(lines), form="csv", update=True)
    assert (changed.summary.updated, changed.summary.refused) == (1, 1)
    assert target.links.get(taken).long_url == f"{TARGET}/2"


def test_file_that_is_none_is_refused_whole(target):
    with pytest.raises(errors.InvalidRequest) as refused:
        target.import_file(io.BytesIO(b"colour,size\nred,5\n"))
    assert refused.value.errors
    assert not refused.value.may_have_applied


# --- the command line ----------------------------------------------------------------------


@pytest.fixture
def run(cli, tmp_path):
    def of(gateway, key, *arguments):
        settings = {
            "HOPGATE_URL": gateway.url,
            "HOPGATE_KEY": key,
            "HOPGATE_DATA_DIR": str(tmp_path / "none"),
        }
        return cli(settings, *arguments)

    return of


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_export_elsewhere_is_what_it_is_at_home(run, cli, other, other_key, clients, tmp_path, form):
    create_links(clients(other.url, other_key), fresh_slug())
    here, there = tmp_path / "here", tmp_path / "there"

    assert cli(other.settings, "links", "export", "--format", form, "--output", str(here)).returncode == 0
    told = run(other, other_key, "links", "export", "--format", form, "--output", str(there))

    assert told.returncode == 0
    assert there.read_bytes() == here.read_bytes()
    count = len(here.read_text().splitlines()) - (form == "csv")
    assert told.stderr.splitlines()[-1] == f"hopgate: {count:,} links exported"
    assert run(other, other_key, "links", "export", "--format", form).stdout == here.read_text()


def test_import_elsewhere(run, other, other_key, target, tmp_path):
    slug, taken = fresh_slug(), fresh_slug()
    target.links.create(TARGET, slug=taken)
    file = tmp_path / "links.csv"
    file.write_text(f"long_url,slug\n{TARGET},{slug}\n{TARGET}/2,{taken}\n")

    def imported(*options):
        return run(other, other_key, "links", "import", str(file), "--format", "csv", *options)

    tried = imported("--dry-run")
    assert tried.returncode == 1
    with pytest.raises(errors.NotFound):
        target.links.get(slug)
    done = imported()
    assert done.returncode == 1
    assert "1 link imported, 1 row refused" in done.stderr
    assert "slug is taken by a link with another target" in done.stderr
    assert target.links.get(slug).long_url == TARGET
    again = imported("--allow-refused", "--json")
    assert again.returncode == 0
    document = json.loads(again.stdout)
    assert (document["same"], document["refused"], document["imported"]) == (1, 1, 0)
    updated = imported("--update")
    assert updated.returncode == 0
    assert target.links.get(taken).long_url == f"{TARGET}/2"
    file.write_text("colour,size\nred,5\n")
    refused = run(other, other_key, "links", "import", str(file))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert len(refused.stderr.splitlines()) == 1
