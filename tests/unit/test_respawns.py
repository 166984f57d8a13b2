"""granian's server as Hopgate overrides it: its respawn limit, and the methods it relies on."""

from __future__ import annotations

from granian.server.mp import MPServer

from app.commands.granian_server import DEATHS_WITHIN_S, MAX_DEATHS, Respawns, Server


def gives_up(times: list[float]) -> list[bool]:
    """Return, for each of *times*: does granian exit if worker 1 dies a second after that respawn?"""
    respawns, verdicts = Respawns(), []
    for at in times:
        respawns[1] = at
        verdicts.append(at + 1 - respawns.get(1, 0) <= 5.5)
        respawns.clear()
    return verdicts


def test_occasional_deaths_are_always_respawned():
    assert not any(gives_up([1000 + 3.0 * number for number in range(200)]))


def test_crash_loop_ends_the_gateway():
    each_s = DEATHS_WITHIN_S / (MAX_DEATHS + 1)

    assert gives_up([1000 + each_s * number for number in range(MAX_DEATHS)]) == [False] * (
        MAX_DEATHS - 1
    ) + [True]


def test_old_deaths_are_forgotten():
    assert not any(gives_up([1000.0 + number for number in range(MAX_DEATHS - 1)] + [2000.0]))


def test_overridden_methods_exist_in_granian():
    """They are private: after an upgrade granian may no longer call them."""
    overridden = {name for name, member in vars(Server).items() if callable(member)} - {"__init__"}

    assert "_spawn_worker" in overridden
    assert overridden <= set(dir(MPServer))
