"""How whole pipelines are spread over processes: never changed, swapped on demand, or partitioned
anew from time to time."""

from collections.abc import Mapping, Sequence
from typing import Final

from loadgen.simulator.cluster.clock import Clock
from loadgen.simulator.cluster.device import Device
from loadgen.simulator.cluster.job import Job
from loadgen.simulator.profiles.profile import Profile
from loadgen.simulator.systems.pipelines import (
    Group,
    PipelineProcess,
    PipelineSystem,
    pipeline_seconds,
)
from loadgen.simulator.systems.shares import apportioned, packed

PERIOD: Final = 30.0
"""Seconds between two partitions."""

Load = Mapping[str, float]
"""Seconds of a device that is asked of each workflow."""


def static(clock: Clock, profile: Profile, devices: Sequence[Device], load: Load) -> PipelineSystem:
    """A pipeline for each process, in proportion to the load that is expected; where there are
    fewer processes than pipelines, some have several."""
    return PipelineSystem(clock, profile, devices, _apart(profile, devices, load))


def swap(clock: Clock, profile: Profile, devices: Sequence[Device], load: Load) -> PipelineSystem:
    """Every process takes every request. It begins as `static` does, with as many pipelines more on
    each device as there is memory for."""
    groups = _apart(profile, devices, load)
    processes = [process for group in groups for process in group.processes]
    order = sorted(load, key=lambda name: -load[name])
    for number, process in enumerate(processes):
        rotated = order[number % len(order) :] + order[: number % len(order)]
        _fill(profile, process, rotated)
    return PipelineSystem(clock, profile, devices, [Group(tuple(load), processes)])


class Partition(PipelineSystem):
    """As `static`, but every `PERIOD` seconds the processes are divided anew, by what was asked
    since the last time."""

    def __init__(
        self, clock: Clock, profile: Profile, devices: Sequence[Device], load: Load
    ) -> None:
        super().__init__(clock, profile, devices, _apart(profile, devices, load))
        self._asked = dict.fromkeys(load, 0.0)
        self._since = 0.0

    def came(self, job: Job) -> None:
        if self.clock.now >= self._since + PERIOD:
            self._divide()
        self._asked[job.wanted.name] += pipeline_seconds(self.profile, [job.wanted])
        super().came(job)

    def _divide(self) -> None:
        """Nobody leaves a group that keeps its size; who leaves one takes up the other's pipeline
        with its first request."""
        if any(self._asked.values()) and len(self.devices) >= len(self._asked):
            wanted = apportioned(self._asked, len(self.devices))
            free: list[PipelineProcess] = []
            for group in self.groups:
                [name] = group.workflows
                group.processes.sort(key=lambda one: not one.busy)
                free += group.processes[wanted[name] :]
                del group.processes[wanted[name] :]
            for group in self.groups:
                [name] = group.workflows
                while len(group.processes) < wanted[name]:
                    group.processes.append(free.pop())
                self.dispatch(group)
        self._asked = dict.fromkeys(self._asked, 0.0)
        self._since = self.clock.now


def _apart(profile: Profile, devices: Sequence[Device], load: Load) -> list[Group]:
    """A group for each workflow; where there are fewer devices than workflows, one for each
    device."""
    processes = [PipelineProcess(device) for device in devices]
    if len(devices) < len(load):
        parts = packed(load, len(devices))
        groups = [Group(part, [one]) for part, one in zip(parts, processes, strict=False)]
    else:
        counts = iter(processes)
        shares = apportioned(load, len(devices))
        groups = [Group((name,), [next(counts) for _ in range(n)]) for name, n in shares.items()]
    for group in groups:
        for process in group.processes:
            _fill(profile, process, group.workflows)
    return groups


def _fill(profile: Profile, process: PipelineProcess, names: Sequence[str]) -> None:
    """Those of `names` are resident from the start for which there is memory, the first ones
    longest."""
    left = profile.memory - sum(profile.bytes_of(name) for name in process.resident)
    for name in names:
        if name not in process.resident and profile.bytes_of(name) <= left:
            process.resident[name] = None
            left -= profile.bytes_of(name)
