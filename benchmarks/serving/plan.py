"""How long everything is done. Pure."""

from dataclasses import dataclass
from typing import Final

from benchmarks.serving.mix import STEPS


@dataclass(frozen=True, slots=True)
class Plan:
    """Durations in seconds. A trial lasts `trial_seconds`, or longer until it has 20 requests."""

    steps: tuple[int, ...] = STEPS
    rounds: int = 2
    factor: float = 2.0
    """Of the solo latency: a request's deadline."""
    solo_requests: int = 2
    """Per template and system, after one that does not count."""
    search_seconds: float = 50.0
    """Of each system in each round, and as long again while no rate was sustained; the trial that
    has begun then is finished."""
    trial_seconds: float = 20.0
    precision: float = 0.1
    share_of_peak: float = 0.7
    load_seconds: float = 25.0
    drain_seconds: float = 15.0
    """What takes longer after the last send is cut off."""
    burst_factor: float = 8.0
    before_burst: float = 8.0
    burst_seconds: float = 10.0
    after_burst: float = 40.0
    users: int = 24
    warm_seconds: float = 4.0
    saturation_seconds: float = 10.0
    network_seconds: float = 3.0


FULL: Final = Plan()
QUICK: Final = Plan(
    steps=(2, 4),
    rounds=1,
    factor=20.0,
    solo_requests=1,
    search_seconds=8.0,
    trial_seconds=4.0,
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
