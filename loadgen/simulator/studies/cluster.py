"""A cluster as it was asked for, and how it is built."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from loadgen.outcomes.outcome import Shot
from loadgen.simulator.cluster.clock import Clock
from loadgen.simulator.cluster.device import Device
from loadgen.simulator.cluster.job import Wanted, wanted
from loadgen.simulator.profiles.profile import Profile
from loadgen.simulator.studies.names import MOST_DEVICES, OURS, Name
from loadgen.simulator.systems.base import System
from loadgen.simulator.systems.baselines import Partition, static, swap
from loadgen.simulator.systems.darkroom import DarkroomSystem, Policies
from loadgen.simulator.systems.pipelines import PipelineSystem, pipeline_seconds
from loadgen.simulator.systems.placer import Placer
from shared.policy.placement.place import place

Devices = Annotated[int, Meta(ge=1, le=MOST_DEVICES)]


BASELINES: Final[Mapping[Name, Callable[..., PipelineSystem]]] = {
    "static": static,
    "swap": swap,
    "partition": Partition,
}


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """`devices` of `profile.memory` each, under `system`. A profile of a fleet that shares a
    machine's cores says itself how many processes there are."""

    profile: Profile
    system: Name = OURS
    devices: Devices = 8


def build(
    cluster: Cluster, clock: Clock, expected: Sequence[Shot], policies: Policies | None = None
) -> System:
    """`expected`: requests by whose mix the devices are laid out beforehand."""
    profile = cluster.profile
    asked = [wanted(shot, profile) for shot in expected]
    if profile.host is not None and cluster.system == OURS:
        return _on_one_host(profile, clock, policies)
    devices = [Device(clock) for _ in range(cluster.devices)]
    if cluster.system != OURS:
        return BASELINES[cluster.system](clock, profile, devices, _load(profile, asked))
    policies = policies or Policies()
    placer = Placer(profile, cluster.devices, asked, policies.place or place)
    layout = placer.begin()
    return DarkroomSystem(
        clock, profile, devices, layout, policies, placer if policies.place else None
    )


def _load(profile: Profile, asked: Sequence[Wanted]) -> dict[str, float]:
    """Seconds that each workflow takes for all of `asked`, one by one."""
    found: dict[str, float] = {}
    for one in asked:
        found[one.name] = found.get(one.name, 0.0) + pipeline_seconds(profile, [one])
    return found


def _on_one_host(profile: Profile, clock: Clock, policies: Policies | None) -> System:
    """Every component in a process of its own, denoisers in several; they share the cores."""
    assert profile.host is not None
    cores = Device(clock, profile.host.cores)
    denoisers = [name for name, one in profile.components.items() if one.kind == "denoise"]
    more = [denoisers] * (profile.host.denoisers - 1)
    placement = [list(profile.components), *more]
    return DarkroomSystem(clock, profile, [cores] * len(placement), placement, policies)
