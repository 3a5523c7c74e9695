"""What a request takes of each component that it needs."""

from loadgen.simulator.cluster.job import Wanted
from loadgen.simulator.profiles.profile import Profile


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
