"""The commands and the fields that docs/aliases.md shows."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.servers.hopgate import hopgate, make_store

PAGE = Path(__file__).parents[2] / "docs" / "aliases.md"


def test_commands_do_what_they_say(tmp_path):
    settings = {"HOPGATE_DATA_DIR": str(tmp_path / "data"), "HOPGATE_BASE_URL": "https://hop.example"}
    make_store(settings)
    [commands] = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    [shown] = re.findall(r"^```json\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)

    done = [hopgate(settings, *line.split()[1:]) for line in commands.splitlines()]
    link = json.loads(hopgate(settings, "links", "get", "sale").stdout)

    assert [one.returncode for one in done] == [0] * 5, [one.stderr for one in done]
    assert json.loads(done[3].stdout)["slug"] == "summer-sale"
    document = json.loads(shown)
    assert document.keys() <= link.keys()
    assert {**document, "visits": 0, "version": 4} == {name: link[name] for name in document}
