"""How long everything is done. Pure."""

from dataclasses import dataclass, replace
from typing import Final

from benchmarks.harness.traffic_mix import STEPS


@dataclass(frozen=True, slots=True)
class Plan:
    """Durations in seconds."""

    steps: tuple[int, ...] = STEPS
    factor: float = 2.0
    """Of the solo latency: a request's deadline."""
    solo_requests: int = 2
    """Per template and system, after one that does not count."""
    search_seconds: float = 90.0
    """For our highest rate, in each round."""
    search_seconds_baseline: float = 160.0
    """For a baseline's, which needs longer for as many requests."""
    coarse_requests: int = 20
    """Of a trial as long as the highest rate is not yet between two that were tried."""
    fine_requests: int = 60
    """Of a trial near our highest rate."""
    fine_requests_baseline: int = 40
    trial_seconds: float = 12.0
    """Of a trial at least."""
    precision: float = 0.08
    share_of_peak: float = 0.7
    load_seconds: float = 25.0
    least_requests: int = 8
    """Of a load, which takes longer for that if need be."""
    drain_seconds: float = 15.0
    """What takes longer after the last send is cut off."""
    burst_factor: float = 8.0
    before_burst: float = 8.0
    burst_seconds: float = 10.0
    after_burst: float = 35.0
    users: int = 24
    warm_seconds: float = 4.0
    saturation_seconds: float = 10.0
    network_seconds: float = 3.0

    def times(self, share: float) -> "Plan":
        """Everything that can be shorter is done for `share` of its time; a burst cannot be, nor
        what a figure needs to be one at all (warm-up, the network's own time)."""
        return replace(
            self,
            search_seconds=share * self.search_seconds,
            search_seconds_baseline=share * self.search_seconds_baseline,
            load_seconds=share * self.load_seconds,
            before_burst=share * self.before_burst,
            after_burst=share * self.after_burst,
            saturation_seconds=share * self.saturation_seconds,
        )


FULL: Final = Plan()
QUICK: Final = Plan(
    steps=(2, 4),
    factor=20.0,
    solo_requests=1,
    search_seconds=8.0,
    search_seconds_baseline=8.0,
    coarse_requests=8,
    fine_requests=12,
    fine_requests_baseline=12,
    trial_seconds=2.0,
    precision=1.0,
    load_seconds=5.0,
    drain_seconds=5.0,
    before_burst=2.0,
    burst_seconds=2.0,
    after_burst=5.0,
    users=8,
    warm_seconds=1.0,
    saturation_seconds=4.0,
    network_seconds=0.5,
)
