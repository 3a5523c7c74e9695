"""Several steps of the same rows, as they are computed: on one device, on two that take half of
each step, or with ControlNets that are asked in every step."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from math import ceil, inf
from typing import Final

from loadgen.simulator.cluster.controls import ControlServer, ask_all
from loadgen.simulator.cluster.device import Device
from loadgen.simulator.cluster.queue import Place
from loadgen.simulator.cluster.rows import Row, Run
from loadgen.simulator.profiles.profile import Overheads

STEPS_AHEAD: Final = 10
STEPS_SPLIT: Final = 2
"""The same while another denoiser helps, which stops when it has work of its own."""
HAIR: Final = 1e-6
"""Of a step: what is left of it then is rounding."""


class Runs:
    """What a denoiser computes. `done` is called with each run whose last step is taken."""

    def __init__(
        self,
        place: Place,
        overheads: Overheads,
        controls: Mapping[str, ControlServer],
        done: Callable[[Run], None],
    ) -> None:
        self._clock, self._device, self._component = place.clock, place.device, place.component
        self._overheads, self._controls, self._done = overheads, controls, done

    def __repr__(self) -> str:
        return f"<Runs on {self._device}>"

    def begin(self, rows: tuple[Row, ...], steps: int, idle: Iterable[Device]) -> Run:
        """At most `steps` steps of `rows`. `idle`: devices of others that hold the component and
        could take half of a step; none if anybody waits here."""
        units = sum(row.job.wanted.units for row in rows)
        seconds = self._component.cost.seconds(units) + self._overheads.step
        controlled = any(row.job.wanted.workflow.controls for row in rows)
        run = Run(rows, min(steps, STEPS_AHEAD), seconds, self._clock.now, controlled)
        shared = self._split_seconds(rows, units)
        helper = next(iter(idle), None) if shared < seconds else None
        if helper is not None:
            run.seconds, run.split, run.steps = shared, True, min(steps, STEPS_SPLIT)
            helper.begin(run.steps * shared, _nothing)
            self._compute(run)
        elif controlled:
            self._take_controlled(run)
        else:
            self._compute(run)
        return run

    def cut_short(self, run: Run) -> None:
        """It ends with the step that is being taken."""
        if run.steps == 1 or run.seconds <= 0.0 or run.split:
            return
        if run.controlled:
            run.steps = run.taken + 1
        elif run.computation is not None:
            left = self._device.left(run.computation)
            more = ceil(left / run.seconds - HAIR) - 1
            if more > 0:
                run.steps -= more
                self._device.shorten(run.computation, left - more * run.seconds)

    def taken(self, run: Run) -> int:
        """Steps of `run` that are over."""
        if run.controlled or run.computation is None or run.steps == 1 or run.seconds <= 0.0:
            return run.taken
        return run.steps - ceil(self._device.left(run.computation) / run.seconds - HAIR)

    def _split_seconds(self, rows: tuple[Row, ...], units: float) -> float:
        """Of a step of which an idle denoiser computes half (`services/denoiser/cfg_parallel`);
        infinite where that cannot be."""
        wanted, way = rows[0].job.wanted, self._overheads.split
        if way is None or wanted.forwards != 2 or wanted.workflow.controls or len(rows) > 1:
            return inf
        return self._component.cost.seconds(units / 2) + self._overheads.step + way

    def _compute(self, run: Run) -> None:
        ended = partial(self._done, run)
        run.computation = self._device.begin(run.steps * run.seconds, ended)

    def _take_controlled(self, run: Run) -> None:
        """One step, in which ControlNets compute beside its first part."""
        steered = (row.job.wanted.workflow for row in run.rows if row.job.wanted.workflow.controls)
        first = min(workflow.ahead for workflow in steered) * run.seconds
        there: list[float] = []

        def one_is_there() -> None:
            there.append(self._clock.now)
            if len(there) == 2:
                self._device.begin(run.seconds - first, lambda: self._stepped_controlled(run))

        def answered() -> None:
            if there:
                run.waited += self._clock.now - there[0]
            one_is_there()

        self._device.begin(first, one_is_there)
        ask_all(self._clock, self._controls, run.rows, self._overheads.ask, answered)

    def _stepped_controlled(self, run: Run) -> None:
        run.taken += 1
        if run.taken < run.steps:
            self._take_controlled(run)
        else:
            self._done(run)


def _nothing() -> None:
    """Whose half it is goes on when its own half is computed, which takes as long."""
