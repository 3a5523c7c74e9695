"""Who sends requests in a simulated run, as `loadgen/runs/run.py` does in a real one."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Final

from loadgen.outcomes.outcome import Outcome, Shot
from loadgen.runs.run import RETRY_SECONDS
from loadgen.simulator.cluster.clock import Clock
from loadgen.workload.workload import Workload, requests

EXAMPLES: Final = 1000

Send = Callable[[Shot, Callable[[Outcome], None]], None]
"""Sends a shot now; the function is called with its outcome."""


def send_open(shots: Iterable[Shot], clock: Clock, send: Send) -> None:
    """Every shot at its time, whatever becomes of the others."""
    for shot in shots:
        clock.at(shot.at, send, shot, _careless)


def _careless(outcome: Outcome) -> None:
    pass


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """`users` users each ask, wait, and think for a time that is exponential with mean `think`
    seconds, for as long as the workload lasts."""

    workload: Workload
    users: int
    think: float = 0.0

    def examples(self) -> tuple[Shot, ...]:
        """What they ask for, in about the proportions in which they do."""
        asked = itertools.islice(requests(self.workload, "user/0"), EXAMPLES)
        return tuple(Shot(number, 0.0, *each) for number, each in enumerate(asked))

    def begin(self, clock: Clock, send: Send) -> None:
        count = itertools.count()
        for user in range(self.users):
            self._user(user, clock, send, count)

    def _user(self, user: int, clock: Clock, send: Send, count: "itertools.count[int]") -> None:
        thoughts = Random(f"{self.workload.seed}/think/{user}")
        asked = requests(self.workload, f"user/{user}")

        def ask() -> None:
            if clock.now < self.workload.seconds:
                tenant, template, request = next(asked)
                send(Shot(next(count), clock.now, tenant, template, request), answered)

        def answered(outcome: Outcome) -> None:
            pause = thoughts.expovariate(1 / self.think) if self.think else 0.0
            if outcome.status != "done":
                pause = max(pause, RETRY_SECONDS)
            clock.after(pause, ask)

        clock.at(0.0, ask)
