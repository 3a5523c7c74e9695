"""What an operator may set of admission. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from shared.policy.release.plan import Margin


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of what waits without a deadline, over all users and for each."""

    jobs: int = 4096
    bytes: int = 1 << 30
    user_jobs: int = 1024
    user_bytes: int = 1 << 28


@dataclass(frozen=True, slots=True)
class Rules:
    """What an operator may set. `weights`: of users, where it is not 1."""

    bounds: Bounds = field(default_factory=Bounds)
    margin: Margin = field(default_factory=Margin)
    weights: Mapping[str, float] = field(default_factory=dict)
