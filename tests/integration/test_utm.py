"""UTM parameters as fields of links: over HTTP, in batches, on the command line, and through files."""

from __future__ import annotations

import json

from app.domain import utm
from tests.integration.api_calls import LINKS, create, problem
from tests.integration.bulk_calls import patch, post, results
from tests.integration.test_cli import settings  # noqa: F401
from tests.servers.hopgate import hopgate

TARGET = "https://example.com/p"


def tags_of(link: dict) -> dict:
    return {name: link[name] for name in utm.NAMES if link[name] is not None}


def test_parameters_are_part_of_the_target_and_shown_as_fields(api, visitor):
    link = create(api, long_url=f"{TARGET}?utm_source=old&id=1", utm_source="a b", utm_campaign="é&")

    assert link["long_url"] == f"{TARGET}?utm_source=a%20b&id=1&utm_campaign=%C3%A9%26"
    assert tags_of(link) == {"utm_source": "a b", "utm_campaign": "é&"}
    assert api.get(f"{LINKS}/{link['slug']}").json() == link
    assert api.get(LINKS, params={"limit": 1}).json()["links"][0] == link
    # Last: a visit is counted some time later, and shown.
    assert visitor.get(f"/{link['slug']}").headers["location"] == link["long_url"]


def test_edit_of_parameters_edits_those_alone(api):
    link = create(api, long_url=f"{TARGET}?x=1", utm_source="a", utm_medium="b", title="T")
    path = f"{LINKS}/{link['slug']}"

    edited = api.patch(path, json={"utm_source": None, "utm_term": "t"}).json()
    moved = api.patch(path, json={"long_url": "https://example.org/", "utm_medium": "c"}).json()

    assert edited["long_url"] == f"{TARGET}?x=1&utm_medium=b&utm_term=t"
    assert edited["title"] == "T"
    assert moved["long_url"] == "https://example.org/?utm_medium=c"
    assert tags_of(moved) == {"utm_medium": "c"}


def test_what_cannot_be_a_parameter_is_a_field_error(api):
    link = create(api)
    for body in ({"utm_source": ""}, {"utm_source": "a\nb"}, {"utm_source": "x" * 256}):
        made = api.post(LINKS, json={"long_url": TARGET, **body})
        edited = api.patch(f"{LINKS}/{link['slug']}", json=body)
        for answer in (made, edited):
            assert problem(answer, 422, "invalid")["errors"][0]["field"] == "utm_source"

    too_long = {"long_url": f"{TARGET}?{'a' * 8_000}", "utm_source": "x" * 255}
    assert problem(api.post(LINKS, json=too_long), 422, "invalid")["errors"][0]["field"] == "long_url"


def test_override_needs_forwarding(api):
    alone = api.post(LINKS, json={"long_url": TARGET, "override_query": True})
    assert problem(alone, 422, "invalid")["errors"][0]["code"] == "override_query_alone"

    link = create(api, forward_query=True, override_query=True)
    path = f"{LINKS}/{link['slug']}"
    assert api.patch(path, json={"forward_query": False}).status_code == 422
    assert api.patch(path, json={"forward_query": False, "override_query": False}).status_code == 200


def test_batches_take_parameters(api):
    made = post(
        api,
        {"long_url": TARGET, "utm_source": "a", "external_id": "utm-batch"},
        {"long_url": "nowhere", "utm_source": "a"},
    )
    link = results(made)[0]["link"]
    upserted = post(
        api,
        {"long_url": TARGET, "utm_source": "b", "external_id": "utm-batch"},
        upsert="external_id",
    )
    edited = patch(api, {"slug": link["slug"], "utm_medium": "m"}, {"slug": link["slug"], "utm_term": ""})

    assert link["long_url"] == f"{TARGET}?utm_source=a"
    assert results(made)[1]["status"] == 422
    assert results(upserted)[0]["link"]["long_url"] == f"{TARGET}?utm_source=b"
    assert results(edited)[0]["link"]["long_url"] == f"{TARGET}?utm_source=b&utm_medium=m"
    assert results(edited)[1]["error"]["errors"][0]["field"] == "utm_term"


def test_history_shows_and_undoes_them_as_the_target(api):
    link = create(api, long_url=TARGET, forward_query=True)
    path = f"{LINKS}/{link['slug']}"
    api.patch(path, json={"utm_source": "a", "override_query": True})

    change = api.get(f"{path}/history").json()["changes"][0]
    undone = api.post(f"{path}/undo").json()

    assert change["before"] == {"long_url": TARGET, "override_query": False}
    assert change["after"] == {"long_url": f"{TARGET}?utm_source=a", "override_query": True}
    assert (undone["long_url"], undone["override_query"], undone["utm_source"]) == (TARGET, False, None)


def test_command_line_takes_parameters(settings):  # noqa: F811
    made = ("links", "create", TARGET, "--slug", "mine", "--utm-source", "a b", "--utm-medium", "m")
    hopgate(settings, *made, "--forward-query", "--override-query")
    edited = hopgate(settings, "links", "edit", "mine", "--utm-source", "none", "--utm-term", "t", "--json")
    wrong = hopgate(settings, "links", "edit", "mine", "--utm-term", "x" * 256)

    link = json.loads(edited.stdout)
    assert link["long_url"] == f"{TARGET}?utm_medium=m&utm_term=t"
    assert (link["override_query"], tags_of(link)) == (True, {"utm_medium": "m", "utm_term": "t"})
    assert (wrong.returncode, "utm_term" in wrong.stderr) == (1, True)


def test_files_take_and_show_parameters(settings, tmp_path):  # noqa: F811
    file = tmp_path / "links.csv"
    file.write_text(
        "slug,long_url,utm_source,UTM Campaign\n"
        f"one,{TARGET}?utm_source=old,new,\n"
        f"two,{TARGET}?utm_source=a+b,a b,spring\n"
        f"three,{TARGET},{'x' * 256},\n"
    )
    imported = hopgate(settings, "links", "import", str(file), "--json")
    exported = hopgate(settings, "links", "export").stdout
    links = {link["slug"]: link for link in map(json.loads, exported.splitlines())}
    again = tmp_path / "again.jsonl"
    again.write_text(exported)
    report = json.loads(hopgate(settings, "links", "import", str(again), "--json").stdout)

    assert json.loads(imported.stdout)["reasons"][0]["field"] == "utm_source"
    assert links["one"]["long_url"] == f"{TARGET}?utm_source=new"
    assert links["two"]["long_url"] == f"{TARGET}?utm_source=a+b&utm_campaign=spring"
    assert tags_of(links["two"]) == {"utm_source": "a b", "utm_campaign": "spring"}
    assert (report["same"], report["refused"], report["ignored_columns"]) == (2, 0, [])
