"""What a ControlNet adds to a step: in a fleet, where it has a process and a core of its own, and
in diffusers.

Steps with 0, 1 and 2 ControlNets, of one guided image that is alone. In the fleet the denoiser has
one core and one torch thread, and so has each ControlNet while there are cores; with two cores all
ControlNets share the second one, with the bus, the other services and this program. The same
pictures are drawn by diffusers' `StableDiffusionXLControlNetPipeline`, on the denoiser's core with
one thread (`baseline`), and with all cores and as many threads (`baseline_all_cores`). All three
take turns for each number of ControlNets, in changing order, after a round that does not count; a
figure is the median of the rounds' median steps, a ratio that of the ratios within a round.

First for a UNet of realistic size with random weights (`large_model.py`), then (`pocket`) for the
model that ships, or `--model`, with its own ControlNets. With those, pictures are compared too:
with none, with each and with two at once; differences are in steps of 1/255.

`hop_microseconds`: of the time until a ControlNet's answer is there, what it did not work on it.
`hidden_share`: of that time, the share in which the denoiser had work of its own.
"""

import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.baselines.reference import Baseline
from benchmarks.controlnet.fleet import ControlFleet, control_fleet
from benchmarks.controlnet.requests import guides, with_controls
from benchmarks.controlnet.table import MOST, SIDES, Round, rows, summary
from benchmarks.harness import requests
from benchmarks.harness.budget import rounds_within
from benchmarks.harness.cpu_pinning import keeping_to
from benchmarks.harness.fleet import render
from benchmarks.harness.large_model import LARGE, SMALL, controlnet, large_model, parameters
from benchmarks.harness.pixels import Difference, difference, total
from benchmarks.harness.program import Options, Results, cores, run_program, say
from services.fleet.plan.processes import default_controls
from shared.errors import Misconfigured
from shared.jobs.validate import validate
from shared.models.catalogue import Catalogue

KINDS: Final = ("edges", "blocks")
"""Of hints, for the ControlNets of the large model."""


@dataclass(frozen=True, slots=True)
class Size:
    """`seconds`: after which no further round begins."""

    steps: int
    rounds: int
    seconds: float
    trials: int = 2


FULL: Final = Size(steps=6, rounds=7, seconds=420.0, trials=1)
POCKET: Final = Size(steps=25, rounds=9, seconds=150.0)
QUICK: Final = Size(steps=3, rounds=1, seconds=10.0, trials=1)


async def measure(options: Options) -> Results:
    with tempfile.TemporaryDirectory(prefix="darkroom-benchmark-") as here:
        model = large_model(Path(here) / "large", SMALL if options.quick else LARGE)
        controls = [
            str(controlnet(Path(here) / "controls" / kind, model, seed=k))
            for k, kind in enumerate(KINDS)
        ]
        async with _sides(str(model), controls, QUICK if options.quick else FULL) as large:
            found = await large.measured() | {"unet_parameters": parameters(model)}
    catalogue = Catalogue.load([options.model], controls=default_controls(os.environ))
    fitting = catalogue.controls_for(catalogue.default.name)
    if len(fitting) < MOST:
        raise Misconfigured(
            f"{MOST} ControlNets are needed, DARKROOM_CONTROLS has {len(fitting)} for this model"
        )
    sources = [card.source for card in fitting.values()]
    async with _sides(options.model, sources, QUICK if options.quick else POCKET) as shipped:
        pocket = await shipped.measured()
        return found | await shipped.compared() | {"pocket": pocket}


@asynccontextmanager
async def _sides(model: str, controls: Sequence[str], size: Size) -> AsyncIterator["_Sides"]:
    """Both of `model`, with the ControlNets in directories `controls`."""
    catalogue = Catalogue.load([model], controls=controls)
    async with (
        control_fleet(model, controls, loras=()) as fleet,
        Baseline(model, cores()) as baseline,
    ):
        with keeping_to(fleet.cpu_pinning.others):
            yield _Sides(fleet, baseline, catalogue, size)


class _Sides:
    """A fleet and a pipeline, with the same requests."""

    def __init__(
        self, fleet: ControlFleet, baseline: Baseline, catalogue: Catalogue, size: Size
    ) -> None:
        self._fleet, self._baseline = fleet, baseline
        self._catalogue, self._size = catalogue, size
        self._names = list(catalogue.controls)
        self._all = fleet.cpu_pinning.every
        self._cores = {"baseline": [fleet.cpu_pinning.denoiser], "baseline_all_cores": self._all}

    async def measured(self) -> Results:
        size, rounds = self._size, []
        await self._baseline.settle(self._all, len(self._all))
        [first] = requests.plain(1, size.steps)
        await self._baseline.choose_layout(validate(first, self._catalogue), size.trials)
        for number in rounds_within(size.seconds, size.rounds):
            found = await self._round(number)
            if number:  # the first one warms up
                rounds.append(found)
            factors = ", ".join(f"{side} {found.ratio(side, 1):.2f}" for side in SIDES)
            say(f"round {number}/{size.rounds}: with one ControlNet a step is longer by {factors}")
        about = {"steps": size.steps, "baseline_layout": self._baseline.layout}
        return summary(rounds) | about

    async def _round(self, number: int) -> Round:
        steps: dict[str, list[float]] = {side: [] for side in SIDES}
        questions = []
        for count in range(MOST + 1):
            [plain] = requests.plain(1, self._size.steps, seed=number)
            request = with_controls(plain, *((name, {}) for name in self._names[:count]))
            for side in SIDES if number % 2 else reversed(SIDES):
                if side == "fleet":
                    _, seconds, asked = await self._fleet.looked_at(request)
                    questions.append(asked)
                else:
                    spec, steering = (
                        validate(request, self._catalogue),
                        guides(request, self._catalogue),
                    )
                    seconds = await self._baseline.median_step(spec, steering, self._cores[side])
                steps[side].append(seconds)
        return Round(steps, questions)

    async def compared(self) -> Results:
        """Pictures of both sides."""
        names = self._names
        sets = [[], *([name] for name in names), names[:MOST]]
        await self._baseline.settle(self._all, len(self._all))
        plain = requests.plain(len(sets), self._size.steps, seed=1)
        found: list[Difference] = []
        for request, chosen in zip(plain, sets, strict=True):
            wanted = with_controls(request, *((name, {}) for name in chosen))
            await self._baseline.steer(guides(wanted, self._catalogue))
            expected = await self._baseline.draw(validate(wanted, self._catalogue))
            ours = await render(self._fleet.darkroom, wanted)
            found.append(difference(ours.data, expected))
            say(f"pictures with {chosen or 'no ControlNet'}: off by {found[-1].max_abs_diff}")
        every = total(found)
        return {"max_abs_diff": every.max_abs_diff, "differences": every.counts()}


if __name__ == "__main__":
    run_program("controlnet", __doc__ or "", measure, rows)
