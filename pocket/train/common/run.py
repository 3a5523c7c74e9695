"""What every stage shares: where it keeps its state, how it logs, how it stops and resumes."""

import contextlib
import json
import math
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch


@dataclass(slots=True)
class Run:
    """One training run: its folder, seed and device, and the curve it writes."""

    folder: Path
    seed: int
    device: torch.device
    deadline: float = math.inf  # time.monotonic() after which a stage saves and stops
    started: float = field(default_factory=time.monotonic)
    rank: int = 0  # which of `world` equal workers this is; only the first one writes
    world: int = 1

    def log(self, stage: str, step: int, **values: float) -> None:
        """Append one point to the curve, a file of JSON lines, and print it."""
        if self.rank:
            return
        seconds = round(time.monotonic() - self.started, 1)
        line = json.dumps(
            {"stage": stage, "step": step, "seconds": seconds}
            | {name: round(value, 5) for name, value in values.items()}
        )
        print(line, flush=True)
        with (self.folder / "curve.jsonl").open("a") as curve:
            curve.write(line + "\n")

    def rng(self, stage: str, step: int) -> random.Random:
        """The randomness of one step: the same whether or not the run was resumed before it."""
        seed = f"{self.seed}/{stage}/{step}" + f"/{self.rank}" * (self.world > 1)
        torch.manual_seed(random.Random(seed).getrandbits(63))
        return random.Random(seed)

    def out_of_time(self) -> bool:
        """Whether the budget given with --minutes is spent."""
        return time.monotonic() > self.deadline

    def save(self, stage: str, state: dict[str, Any]) -> None:
        """Replace a stage's checkpoint, never leaving half of one."""
        if self.rank:
            return
        path = self.folder / f"{stage}.pt"
        torch.save(state, path.with_suffix(".tmp"))
        os.replace(path.with_suffix(".tmp"), path)

    def load(self, stage: str) -> dict[str, Any] | None:
        """A stage's checkpoint, or None before its first."""
        path = self.folder / f"{stage}.pt"
        return torch.load(path, map_location=self.device) if path.exists() else None

    @contextlib.contextmanager
    def half(self) -> Iterator[None]:
        """bfloat16 autocast: twice as quick as float32 on a CPU that has avx512_bf16."""
        with torch.autocast(self.device.type, torch.bfloat16):
            yield


def cosine(step: int, steps: int, peak: float, warmup: int, floor: float = 0.01) -> float:
    """The learning rate: linear warm-up to `peak`, then a cosine down to `floor * peak`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min((step - warmup) / max(steps - warmup, 1), 1.0)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def held_then_falling(
    step: int, steps: int, peak: float, warmup: int, decay: float, floor: float = 0.01
) -> float:
    """The learning rate: linear warm-up to `peak`, then constant, then a straight line to zero over
    the last `decay` of the steps, but never below `floor * peak`.

    Unlike a cosine it does not depend on the number of steps before it falls, so a run can be made
    longer or shorter while it is under way.
    """
    left = (steps - step) / (decay * steps)
    return peak * min(1.0, (step + 1) / warmup, max(left, floor))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group the same learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate
