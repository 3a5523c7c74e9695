"""How many processes a service has."""

import pytest

from shared.policy.placement.scale import EMPTY, FULL, Limits, scale
from shared.policy.placement.state import Demand, Process
from shared.services import NodeKind
from tests.shared.policy.placement.fleets import GB, TEXT, A, B, asked, model

DENOISERS = {"denoiser": Limits(most=8)}


def running(count: int, memory: int = 20 * GB) -> list[Process]:
    kinds: frozenset[NodeKind] = frozenset({"denoise"})
    return [Process(f"d{k}", f"gpu{k}", kinds, memory) for k in range(count)]


def denoisers(count: int, rate: float, limits: Limits = DENOISERS["denoiser"]) -> int:
    found = scale([model(A)], running(count), {A: asked(rate)}, {"denoiser": limits})
    return found["denoiser"]


def test_a_busy_service_gets_more_processes_at_once() -> None:
    assert denoisers(1, 0.6) == 1
    assert denoisers(1, 2.0) == 3
    assert denoisers(1, 100.0) == 8


def test_a_constant_load_changes_nothing_twice() -> None:
    for tenths in range(1, 60):
        for count in range(1, 9):
            first = denoisers(count, tenths / 10)
            assert denoisers(first, tenths / 10) == first


def test_between_the_two_bounds_everything_stays() -> None:
    assert denoisers(4, 4 * EMPTY) == 4
    assert denoisers(4, 4 * FULL) == 4
    assert denoisers(4, 0.9 * 3 * EMPTY) == 3


def test_a_service_that_nobody_asks_for_may_have_no_process() -> None:
    nobody = {A: Demand(idle=400.0)}
    for least in (0, 1):
        limits = {"denoiser": Limits(most=8, least=least)}
        assert scale([model(A)], running(3), nobody, limits) == {"denoiser": least}
    waiting = {A: Demand(backlog=2.0, seconds=1.0)}
    assert scale([model(A)], [], waiting, {"denoiser": Limits(8, 0)}) == {"denoiser": 1}


def test_all_that_is_wanted_has_room() -> None:
    both, little = [model(A), model(B)], {A: asked(0.01), B: asked(0.01)}
    assert scale(both, running(1, 12 * GB), little, DENOISERS) == {"denoiser": 2}
    assert scale(both, running(1, 20 * GB), little, DENOISERS) == {"denoiser": 1}


@pytest.mark.parametrize("service", ["denoiser", "prompt_encoder"])
def test_each_service_is_counted_by_itself(service: str) -> None:
    demand = {A: asked(2.0), TEXT: asked(0.1)}
    found = scale([model(A), model(TEXT)], running(1), demand, {service: Limits(8)})
    assert found == {service: 3 if service == "denoiser" else 1}
