"""What no system can exceed on a cluster, however it schedules: devices compute no faster."""

from collections.abc import Sequence
from statistics import mean

from loadgen.simulator.cluster.job import Wanted
from loadgen.simulator.profiles.profile import Component, Profile
from loadgen.simulator.systems.parts import size_of


def least_seconds(profile: Profile, wanted: Wanted) -> float:
    """Of a device that a request takes at least: every component computes in the batches that suit
    it best, and nothing waits or is loaded."""
    workflow, components = wanted.workflow, profile.components
    steps = wanted.steps * wanted.images

    def each(name: str, units: float) -> float:
        return _best(components[name], units)

    return (
        each(workflow.encode, wanted.forwards)
        + steps * sum(each(name, wanted.units) for name in (workflow.denoise, *workflow.controls))
        + wanted.images * each(workflow.decode, size_of(wanted))
    )


def highest_possible_rate(
    profile: Profile, asked: Sequence[Wanted], devices: int, share: float
) -> float:
    """Requests like `asked`, a second, of which `share` can be computed at all: those that take
    least."""
    seconds = sorted(least_seconds(profile, one) for one in asked)
    kept = seconds[: max(1, round(share * len(seconds)))]
    return devices / (mean(kept) * share)


def _best(component: Component, units: float) -> float:
    """Seconds of `units` in the best of all batches of as many each."""
    sizes = range(1, component.max_batch + 1)
    return min(component.cost.seconds(units * size) / size for size in sizes)
