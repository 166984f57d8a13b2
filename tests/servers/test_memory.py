"""Tests write in memory where there is room, and on the disk elsewhere."""

from __future__ import annotations

import pytest

from tests.servers.memory import make_place


def test_place_is_made_where_there_is_room(tmp_path):
    place = make_place(tmp_path, needed=0, beside=0)

    assert place is not None
    assert place.parent == tmp_path
    # Servers of another user reach their directories in it, and list none.
    assert place.stat().st_mode & 0o777 == 0o711


@pytest.mark.parametrize(
    ("folder", "needed", "beside"),
    [(".", 1 << 60, 0), (".", 0, 1 << 60), ("absent", 0, 0)],
    ids=["too little room", "too little memory", "no such file system"],
)
def test_no_place_is_made_without_room(tmp_path, folder, needed, beside):
    assert make_place(tmp_path / folder, needed=needed, beside=beside) is None
    assert not list(tmp_path.iterdir())
