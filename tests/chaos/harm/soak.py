"""Hours in small: a steady load, and whether any process grows under it."""

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from tests.chaos.trial import Trial

SHARE: Final = 0.6
"""Of what the fleet can do."""
EVERY: Final = 5.0
"""Seconds between two looks."""
WARM_UP: Final = 0.3
"""Share of the time after which nothing may grow any more."""
MOST_UNDER_WAY: Final = 64

RSS_PER_MINUTE: Final = 0.5
"""Mebibytes by which a process may grow, by a straight line through what was seen after warm-up:
memory that is neither freed nor bounded shows as more than that at several jobs a second."""
FILES_PER_MINUTE: Final = 0.2


@dataclass(frozen=True, slots=True)
class Sample:
    at: float
    rss: float
    """Mebibytes."""
    files: int
    """Open file descriptors."""


def look(pid: int) -> Sample:
    """Raises `OSError` if the process is gone."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    files = len(os.listdir(f"/proc/{pid}/fd"))
    return Sample(time.monotonic(), pages * os.sysconf("SC_PAGE_SIZE") / 2**20, files)


def slopes(samples: Sequence[Sample]) -> tuple[float, float]:
    """MiB and files per minute, by least squares over the samples after warm-up."""
    begin, end = samples[0].at, samples[-1].at
    late = [s for s in samples if s.at >= begin + WARM_UP * (end - begin)]
    minutes = np.array([(s.at - begin) / 60 for s in late])
    return (
        float(np.polyfit(minutes, [s.rss for s in late], 1)[0]),
        float(np.polyfit(minutes, [s.files for s in late], 1)[0]),
    )


async def soak(trial: Trial, seconds: float) -> None:
    """`seconds` at `SHARE` of what users who do not wait between jobs got out of the fleet."""
    rate = SHARE * await _capacity(trial, min(60.0, seconds / 5))
    samples: defaultdict[str, list[Sample]] = defaultdict(list)
    until = time.monotonic() + seconds
    async with asyncio.TaskGroup() as group:
        group.create_task(_steadily(trial, rate, until))
        while time.monotonic() < until:
            for child in trial.fleet.children:
                if child.pid is not None:
                    samples[f"{child.spec.name}:{child.pid}"].append(look(child.pid))
            await asyncio.sleep(EVERY)
    trial.runs += 1
    found = {name: slopes(seen) for name, seen in samples.items()}
    trial.figures |= {
        "jobs a second": rate,
        "most MiB a minute": max(rss for rss, _ in found.values()),
        "most files a minute": max(files for _, files in found.values()),
        "most MiB": max(seen[-1].rss for seen in samples.values()),
    }
    trial.remarks += [
        f"{name} grows by {rss:.2f} MiB and {files:.2f} files a minute"
        for name, (rss, files) in found.items()
        if rss > RSS_PER_MINUTE or files > FILES_PER_MINUTE
    ]
    if len(samples) > len(trial.fleet.children):
        trial.remarks.append("a process was restarted")


async def _capacity(trial: Trial, seconds: float) -> float:
    """Jobs a second that `USERS` users get who never pause."""
    until, before = time.monotonic() + seconds, len(trial.load.heard)
    await trial.load.run(lambda: time.monotonic() >= until)
    return (len(trial.load.heard) - before) / seconds


async def _steadily(trial: Trial, rate: float, until: float) -> None:
    """Jobs at equal distances, whether or not the ones before have ended."""
    begin, number = time.monotonic(), 0
    async with asyncio.TaskGroup() as group:
        while time.monotonic() < until:
            if len(trial.load.under_way) < MOST_UNDER_WAY:
                group.create_task(trial.load.submit(number % len(trial.load.requests)))
            else:
                trial.load.refused += 1
            number += 1
            await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
    trial.figures["not sent"] = trial.load.refused
