"""Components that come and leave while a simulated fleet serves."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from loadgen.outcomes.outcome import Shot
from loadgen.simulator.cluster.job import wanted
from loadgen.simulator.profiles.profile import Profile
from loadgen.simulator.studies.cluster import Cluster
from loadgen.simulator.studies.run import Simulated, simulate
from loadgen.simulator.systems.darkroom import Policies
from loadgen.simulator.systems.placer import Placer, models_of
from shared.policy.placement.place import place
from shared.policy.placement.state import Move, Process
from shared.policy.release.jobs import Component
from tests.loadgen.simulator.small import SOLO, shot, small_profile

NETWORK: Component = ("denoise", "network")


def two_models(memory: int = 100) -> Profile:
    """`plain`, and `other` with a network of its own that is as large."""
    small = small_profile(memory=memory)
    second = msgspec.structs.replace(small.components["network"], load_seconds=4.0)
    other = msgspec.structs.replace(small.workflows["plain"], denoise="second")
    return msgspec.structs.replace(
        small,
        components={**small.components, "second": second},
        workflows={**small.workflows, "other": other},
    )


def begun(profile: Profile, devices: int, *models: str) -> list[list[str]]:
    asked = [wanted(shot(number, model=name), profile) for number, name in enumerate(models)]
    return Placer(profile, devices, asked).begin()


def in_time(run: Simulated, seconds: float) -> float:
    good = [one for one in run.outcomes if one.status == "done" and one.latency <= seconds]
    return len(good) / len(run.outcomes)


def test_devices_begin_with_what_is_expected_and_with_nothing_else() -> None:
    layout = begun(small_profile(), 2, "plain")
    assert {name for here in layout for name in here} == {"text", "network", "pixels"}
    layout = begun(small_profile(), 2, "steered")
    assert all(("control" in here) == ("network" in here) for here in layout)
    assert any("network" in here for here in layout)


def test_no_device_holds_more_than_fits() -> None:
    profile = small_profile(memory=60)
    layout = begun(profile, 4, "plain", "steered")
    assert {name for here in layout for name in here} == set(profile.components)
    assert all(sum(profile.components[n].bytes for n in here) <= 60 for here in layout)


def test_a_controlnet_is_asked_within_the_steps_of_its_network() -> None:
    [control] = [one for one in models_of(small_profile()) if one.beside]
    assert control.component == ("hint", "control")
    assert control.beside == (("denoise", "network"),)


def test_what_no_device_has_room_for_is_loaded_on_demand_and_jobs_wait_for_it() -> None:
    """One device holds one network at a time, and each is asked for once."""
    shots = [shot(0), shot(1, 30.0, model="other"), shot(2, 60.0)]
    run = simulate(Cluster(profile=two_models(memory=80), devices=1), shots)
    assert [one.status for one in run.outcomes] == ["done"] * 3
    slowest = max(one.latency for one in run.outcomes)
    assert 4.0 < slowest < 5.0 + SOLO + 2.5
    assert run.statistics.loads >= 1


def shifting(seconds: float = 60.0, gap: float = 1.0) -> list[Shot]:
    """First mostly `plain` is asked for, then mostly `other`."""
    found = []
    for number in range(int(2 * seconds / gap)):
        at = number * gap
        mostly, rarely = ("plain", "other") if at < seconds else ("other", "plain")
        name = rarely if number % 10 == 9 else mostly
        found.append(shot(number, at, model=name, deadline=3 * SOLO))
    return found


def test_replicas_follow_what_is_asked_for() -> None:
    """With 4 devices that hold one network each. A fleet that keeps what it held has fewer in time,
    and so has one whose placement gives up what is wanted."""
    cluster = Cluster(profile=two_models(memory=80), devices=4)
    shots = shifting()
    found = simulate(cluster, shots)
    fixed = simulate(cluster, shots, policies=Policies(place=None))
    assert found.statistics.loads >= 1
    assert in_time(found, 3 * SOLO) > in_time(fixed, 3 * SOLO)

    def mutant(models: Any, processes: Sequence[Process], *asked: Any) -> tuple[Move, ...]:
        moves = {move.process: move for move in place(models, processes, *asked)}
        for one in processes[:2]:
            held = sorted(name for name in one.holds if name[0] == "denoise")
            move = moves.get(one.name, Move(one.name))
            moves[one.name] = replace(move, unloads=(*move.unloads, *held))
        return tuple(moves.values())

    worse = simulate(cluster, shots, policies=Policies(place=mutant))
    assert in_time(worse, 3 * SOLO) < in_time(found, 3 * SOLO)


def test_under_a_steady_load_nothing_is_loaded() -> None:
    shots = [
        shot(number, 1.5 * number, model=("plain", "other")[number % 2]) for number in range(80)
    ]
    run = simulate(Cluster(profile=two_models(), devices=3), shots)
    assert run.statistics.loads == 0
    assert all(one.status == "done" for one in run.outcomes)


def test_what_leaves_finishes_its_rows_and_gives_back_the_others() -> None:
    """A network leaves with pictures in hand and others waiting: another one draws those."""
    told: list[Move] = []

    def once(models: Any, processes: Sequence[Process], *asked: Any) -> tuple[Move, ...]:
        holders = [one for one in processes if NETWORK in one.holds]
        if len(holders) < 2:
            return () if told else place(models, processes, *asked)
        told.append(Move(holders[0].name, unloads=(NETWORK,)))
        return tuple(told)

    shots = [shot(number, 0.1 * number) for number in range(24)]
    cluster = Cluster(profile=small_profile(), devices=3)
    run = simulate(cluster, shots, policies=Policies(release=None, place=once))
    assert len(told) == 1
    assert [one.status for one in run.outcomes] == ["done"] * len(shots)
