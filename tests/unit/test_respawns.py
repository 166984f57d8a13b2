from __future__ import annotations

from app.commands.server import DEATHS, DEATHS_WITHIN_S, Respawns


def told(times: list[float]) -> list[bool]:
    """Would granian give the gateway up, when worker 1 dies a second after each of *times*?"""
    respawns, verdicts = Respawns(), []
    for at in times:
        respawns[1] = at
        verdicts.append(at + 1 - respawns.get(1, 0) <= 5.5)
        respawns.clear()
    return verdicts


def test_a_worker_that_is_killed_now_and_then_is_started_again_for_ever():
    assert not any(told([1000 + 3.0 * number for number in range(200)]))


def test_one_that_cannot_start_is_given_up():
    each_s = DEATHS_WITHIN_S / (DEATHS + 1)

    assert told([1000 + each_s * number for number in range(DEATHS)]) == [False] * (DEATHS - 1) + [True]


def test_a_bad_minute_is_forgotten():
    assert not any(told([1000.0 + number for number in range(DEATHS - 1)] + [2000.0]))
