"""How many processes fleets shall have."""

from dataclasses import replace

from services.placement.fleet import models_of, process_of
from services.placement.scaling import wanted_processes
from services.placement.service import PlacementService
from shared.bus.discovery import Service
from shared.bus.memory import MemoryBroker
from shared.bus.placement import wanted_of
from shared.bus.topology import TOPOLOGY
from shared.messages.components import ComponentState, WantedProcesses
from shared.policy.placement.state import Demand
from shared.policy.release.jobs import Component
from tests.loadgen.virtual_time import run_virtually

GB = 1 << 30
DENOISE: Component = ("denoise", "m")


def denoiser(name: str, fleet: str, most: int) -> Service:
    return Service(
        service="denoiser",
        pid=1,
        instance=name,
        version="1",
        models=("m",),
        http="",
        host="here",
        refusal=None,
        process=name,
        budget=8 * GB,
        components=(ComponentState(name="m", state="loaded", bytes=GB),),
        fleet=fleet,
        limits={"denoiser": (1, most)} if most else {},
    )


def wanted(found: list[Service], load: float) -> dict[str, dict[str, int]]:
    """`load`: of one process, that all jobs together take."""
    processes = [process_of(one, None) for one in found]
    demand = {DENOISE: Demand(rate=load, seconds=1.0)}
    return wanted_processes(found, processes, models_of(found), demand)


def test_a_fleet_gets_more_processes_as_more_is_asked_up_to_its_most() -> None:
    one = [denoiser("d1", "f", 4)]
    assert wanted(one, 0.5) == {"f": {"denoiser": 1}}
    assert wanted(one, 1.2) == {"f": {"denoiser": 2}}
    assert wanted(one, 50.0) == {"f": {"denoiser": 4}}


def test_a_fleet_gives_processes_back_when_fewer_would_be_far_from_busy() -> None:
    three = [denoiser(f"d{number}", "f", 4) for number in range(3)]
    assert wanted(three, 1.2) == {"f": {"denoiser": 3}}
    assert wanted(three, 0.7) == {"f": {"denoiser": 2}}
    assert wanted(three, 0.0) == {"f": {"denoiser": 1}}


def test_fleets_share_what_is_asked_by_what_they_may_have() -> None:
    found = [denoiser("d1", "small", 1), denoiser("d2", "large", 3)]
    assert wanted(found, 2.0) == {"small": {"denoiser": 1}, "large": {"denoiser": 3}}


def test_processes_of_no_fleet_that_is_scaled_stay_as_they_are() -> None:
    assert wanted([denoiser("d1", "", 0)], 50.0) == {}
    mixed = [denoiser("d1", "", 0), replace(denoiser("d2", "f", 4), process="d2")]
    assert wanted(mixed, 1.2) == {"f": {"denoiser": 2}}


def test_who_decides_again_says_anew_what_another_one_changed_meanwhile() -> None:
    """The one that held the lease before it, or an operator."""

    async def scenario() -> None:
        bus = MemoryBroker().connect("test")
        await bus.ensure(TOPOLOGY)
        service = PlacementService(bus, "one")
        one = WantedProcesses(processes={"denoiser": 1})
        three = WantedProcesses(processes={"denoiser": 3})
        await service._scale("f", one.processes)
        await wanted_of(bus, "f").change(lambda _: three)
        await service._scale("f", one.processes)
        assert await wanted_of(bus, "f").read() == one

    run_virtually(scenario())
