"""Which device holds which components, before anything is known but how often what is asked for."""

from collections.abc import Mapping, Sequence

from loadgen.simulator.cluster.job import Wanted
from loadgen.simulator.profiles.profile import Profile


def seconds_by_component(profile: Profile, asked: Sequence[Wanted]) -> dict[str, float]:
    """Of computing that `asked` takes, each picture by itself; of what it needs alone."""
    found: dict[str, float] = {}
    for one in asked:
        for name, seconds in parts(profile, one):
            found[name] = found.get(name, 0.0) + seconds
    return found


def parts(profile: Profile, wanted: Wanted) -> list[tuple[str, float]]:
    """Components of a request with the seconds that each takes for all of it, alone."""
    workflow, components = wanted.workflow, profile.components

    def seconds(name: str, units: float) -> float:
        return components[name].cost.seconds(units)

    steps = wanted.steps * wanted.images
    return [
        (workflow.encode, seconds(workflow.encode, wanted.forwards)),
        *((name, steps * seconds(name, wanted.units)) for name in workflow.controls),
        (workflow.denoise, steps * seconds(workflow.denoise, wanted.units)),
        (workflow.decode, wanted.images * seconds(workflow.decode, size_of(wanted))),
    ]


def size_of(wanted: Wanted) -> float:
    """Of a picture, over the one that the profile measured."""
    return wanted.units / wanted.forwards


def by_load(profile: Profile, load: Mapping[str, float], devices: int) -> list[tuple[str, ...]]:
    """Components of each device: as many as fit, so that the load of each replica is as small as
    can be, and nothing that has a load is without one if there is memory for it."""
    needed = list(load)
    replicas = dict.fromkeys(needed, 0)
    placed: list[tuple[str, ...]] = []
    for _ in range(devices):
        left, here = profile.memory, list[str]()
        while fitting := [
            name for name in needed if name not in here and profile.components[name].bytes <= left
        ]:
            most = max(fitting, key=lambda n: (not replicas[n], load[n] / max(1, replicas[n])))
            here.append(most)
            replicas[most] += 1
            left -= profile.components[most].bytes
        placed.append(tuple(here))
    return placed
