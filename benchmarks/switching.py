"""What a model that is loaded on demand costs: who waits for it, and those who draw meanwhile.

One fleet of its own, as `darkroom up` lays it out, serves three models: the one that ships, of
which a user at a time asks for pictures without a pause; `large`, whose denoising network has some
240 million random weights (1 GB); and `pocket`, the one that ships under another name. Both are let
go, and then, in every round:

`cold`: with nothing else to do, a job for a model that no process holds, from its submission to its
picture. `load`: the same load without a job, from when it is asked for until all services hold the
model. `solo`: a job while it is held. `cold_seconds_over_load` is cold over (load + solo), the
worst of both models, of medians.
`steps_disturbed`: the median time between two steps of the model that serves, while another one is
loaded that no job waits for, over the same without a load, in turns; the worst of both. `urgent`:
the same while a job waits for it, which may take what the steps have. `load_seconds` beside it: how
long these loads took.
"""

import argparse
import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.harness.fleet import OwnFleet, own_fleet
from benchmarks.harness.large_model import LARGE, SMALL, large_model, shipped_model
from benchmarks.harness.program import (
    Cells,
    Options,
    Results,
    count_to,
    positive_seconds,
    run_program,
    say,
)
from shared.bus.discovery import services
from shared.bus.model_states import HOLDERS, model_state
from shared.bus.placement import placement, within, without
from shared.client import Darkroom
from shared.messages import GenerationRequest, StepProgress
from shared.messages.components import State

MODELS: Final = ("large", "pocket")
ENVIRONMENT: Final = {"DARKROOM_CONTROLS": "", "DARKROOM_LORAS": ""}
ANSWER_SECONDS: Final = 0.1
"""In which processes say what they hold: the resolution of a load that nobody waits for."""
LONGEST: Final = 300.0
"""Seconds that a load is waited for."""
QUIET_SECONDS: Final = 10.0
STEPS: Final = 20


class Switched:
    """A model of a running fleet that is loaded and let go."""

    def __init__(self, own: OwnFleet, name: str) -> None:
        self._own, self.name = own, name
        self._jobs = 0

    async def stands(self, state: State) -> None:
        """Return when it does in all services."""
        async with asyncio.timeout(LONGEST):
            while True:
                found = await services(self._own.fleet.bus, ANSWER_SECONDS)
                answered = {one.service for one in found}.issuperset(HOLDERS)
                if answered and model_state(found, self.name).state == state:
                    return

    async def let_go(self) -> None:
        for service in HOLDERS:
            await placement(self._own.fleet.bus, service).change(without((self.name,)))
        await self.stands("on disk")

    async def load(self, awaited: bool) -> float:
        """Seconds until it is loaded."""
        began = time.perf_counter()
        for service in HOLDERS:
            await placement(self._own.fleet.bus, service).change(within((self.name,), awaited))
        await self.stands("loaded")
        return time.perf_counter() - began

    async def draw(self) -> float:
        """Seconds until the client has a picture."""
        self._jobs += 1
        began = time.perf_counter()
        await _draw(self._own.darkroom, self.name, f"{self.name}-{self._jobs}", 2)
        return time.perf_counter() - began


class Steps:
    """When steps of the model that serves were done, as a client hears of them."""

    def __init__(self) -> None:
        self._intervals: list[tuple[float, float]] = []
        """When each ended (of `perf_counter`), and seconds since the one before it."""

    def __repr__(self) -> str:
        return f"<Steps {len(self._intervals)}>"

    async def serve(self, darkroom: Darkroom, model: str, user: int) -> None:
        """One user, until it is cancelled."""
        number = 0
        while True:
            number += 1
            request = _request(model, f"steps-{user}-{number}", STEPS)
            job, last = await darkroom.submit(request), None
            async for event in job.events():
                if isinstance(event, StepProgress):
                    if last is not None:
                        self._intervals.append((time.perf_counter(), event.at - last))
                    last = event.at

    def between(self, began: float, ended: float) -> list[float]:
        return [seconds for at, seconds in self._intervals if began <= at <= ended]

    @asynccontextmanager
    async def served(self, own: OwnFleet, model: str, users: int) -> AsyncIterator[None]:
        """Within, `users` ask for pictures without a pause."""
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self.serve(own.darkroom, model, user)) for user in range(users)
            ]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()


async def measure(options: Options) -> Results:
    rounds = options.own.rounds or (1 if options.quick else 3)
    quiet = options.own.seconds or (1.0 if options.quick else QUIET_SECONDS)
    with TemporaryDirectory(prefix="darkroom-benchmark-") as here:
        sources = [
            large_model(Path(here) / "large", SMALL if options.quick else LARGE),
            shipped_model(Path(here) / "pocket"),
        ]
        beside = [str(source) for source in sources]
        async with own_fleet(options.model, environment=ENVIRONMENT, beside=beside) as own:
            serving = Path(options.model).name
            models = [Switched(own, name) for name in MODELS]
            for model in models:
                await model.draw()
                await model.let_go()
            cold: Results = {model.name: [] for model in models}
            for number in range(rounds):
                for model in models:
                    cold[model.name].append(await _cold(model))
                    say(f"round {number + 1}, {model.name}: {cold[model.name][-1]}")
            disturbed: Results = {model.name: [] for model in models}
            steps = Steps()
            async with steps.served(own, serving, options.own.users):
                await asyncio.sleep(quiet)
                for number in range(rounds):
                    for model in models:
                        for awaited in (False, True):
                            found = await _disturbed(model, steps, quiet, awaited)
                            disturbed[model.name].append(found)
                            say(f"round {number + 1}, {model.name}: {found}")
    return summary(cold, disturbed)


async def _cold(model: Switched) -> Results:
    load = await model.load(awaited=True)
    await model.draw()
    solo = await model.draw()
    await model.let_go()
    cold = await model.draw()
    await model.let_go()
    return {"load": load, "solo": solo, "cold": cold}


async def _disturbed(model: Switched, steps: Steps, quiet: float, awaited: bool) -> Results:
    """The time without a load comes half before it and half behind it."""
    began = time.perf_counter()
    await asyncio.sleep(quiet / 2)
    loading = time.perf_counter()
    seconds = await model.load(awaited)
    loaded = time.perf_counter()
    await model.let_go()
    still = time.perf_counter()
    await asyncio.sleep(quiet / 2)
    usual = steps.between(began, loading) + steps.between(still, time.perf_counter())
    # A load may be shorter than the pause between two pictures.
    beside = steps.between(loading, loaded)
    return {
        "urgent": awaited,
        "load": seconds,
        "usual": median(usual) if usual else None,
        "step": median(beside) if beside else None,
        "steps": len(beside),
    }


def summary(cold: Results, disturbed: Results) -> Results:
    found: Results = {}
    for name in cold:
        load, solo, whole = (
            median(one[field] for one in cold[name]) for field in ("load", "solo", "cold")
        )
        found[name] = {"load": load, "solo": solo, "cold": whole, "ratio": whole / (load + solo)}
        for field, urgent in (("patient", False), ("urgent", True)):
            those = [one for one in disturbed[name] if one["urgent"] is urgent]
            ratios = [one["step"] / one["usual"] for one in those if one["step"] and one["usual"]]
            found[name][field] = {
                "disturbed": median(ratios) if ratios else None,
                "load_seconds": median(one["load"] for one in those),
            }
    return {
        "cold_seconds_over_load": round(max(one["ratio"] for one in found.values()), 3),
        "steps_disturbed": _worst(found, "patient"),
        "steps_disturbed_urgent": _worst(found, "urgent"),
        "models": found,
        "cold_rounds": cold,
        "disturbed_rounds": disturbed,
    }


def _worst(found: Results, field: str) -> float | None:
    ratios = [one[field]["disturbed"] for one in found.values()]
    return round(max((one for one in ratios if one), default=0.0), 3) or None


def _request(model: str, job_id: str, steps: int) -> GenerationRequest:
    return GenerationRequest(job_id=job_id, model=model, prompt="a red circle", steps=steps, seed=1)


async def _draw(darkroom: Darkroom, model: str, job_id: str, steps: int) -> None:
    job = await darkroom.submit(_request(model, job_id, steps))
    await job.images()


def rows(report: Results) -> Cells:
    table: Cells = [["", "load", "solo", "cold", "ratio", "steps", "load", "urgent", "load"]]
    for name, one in report["models"].items():
        cells = [f"{one[field]:.2f}" for field in ("load", "solo", "cold", "ratio")]
        for field in ("patient", "urgent"):
            ratio, seconds = one[field]["disturbed"], one[field]["load_seconds"]
            cells += ["" if ratio is None else f"{ratio:.3f}", f"{seconds:.1f} s"]
        table.append([name, *cells])
    return table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=count_to(100), help="(default 3)")
    parser.add_argument("--users", type=count_to(16), default=1, help="who draw (default 1)")
    parser.add_argument(
        "--seconds", type=positive_seconds, help="without a load, each time (default 10)"
    )


if __name__ == "__main__":
    run_program("switching", __doc__ or "", measure, rows, add_arguments)
