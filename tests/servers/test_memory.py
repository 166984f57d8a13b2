"""Tests write in memory where there is room, and on the disk elsewhere."""

from __future__ import annotations

import pytest

from tests.servers.memory import make_place


def test_place_is_made_where_there_is_room(tmp_path):
    place = make_place(tmp_path, needed=0)

    assert place is not None
    assert place.parent == tmp_path
    # Servers of another user reach their directories in it, and list none.
    assert place.stat().st_mode & 0o777 == 0o711


@pytest.mark.parametrize("case", ["too little room", "no such file system"])
def test_no_place_is_made_without_room(tmp_path, case):
    needed = 1 << 60 if case == "too little room" else 0

    assert make_place(tmp_path if needed else tmp_path / "absent", needed=needed) is None
    assert not list(tmp_path.iterdir())
