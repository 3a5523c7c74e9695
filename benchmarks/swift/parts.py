"""The parts of an image's time, each measured by itself, for `model.py`."""

import asyncio
import os
import time
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch

from benchmarks.controlnet.counters import Counters
from benchmarks.swift.model import Asked, BaselineParts, Parts
from benchmarks.swift.sides import ColdSides, Trial
from shared.models.families.registry import family_of
from shared.models.families.sdxl.unet import SdxlUnet
from shared.models.loras.read import read_adapter

NO_GUIDANCE: Final = 1.0


async def fleet_parts(sides: ColdSides, probe: Asked, most: int) -> Parts:
    """From images of `probe`, which has no add-ons, with 0, 1 and `most` ControlNets, and a LoRA
    that is read and merged in this process, on the denoiser's core."""
    _, half, _ = await sides.fleet.looked_at(sides.request(probe, guidance=NO_GUIDANCE))
    plain, base, _ = await sides.fleet.looked_at(sides.request(probe))
    one, all_of_them = [
        (await sides.fleet.looked_at(sides.request(replace(probe, controls=count))))[2]
        for count in (1, most)
    ]
    spent = {stage.kind: 0.0 for stage in plain.done.stages}
    for stage in plain.done.stages:
        spent[stage.kind] += stage.running
    async with sides.loras(1) as files:
        load, patch = await _lora_seconds(sides.model, files, sides.one_core)
    return Parts(
        base=base,
        half=half,
        until_needed=until_needed(all_of_them, base),
        control=one.answer - one.hop,
        hop=one.hop,
        load=load,
        patch=patch,
        enc=spent["encode"],
        vae=spent["decode"],
        rest=max(0.0, plain.seconds - probe.steps * base - spent["encode"] - spent["decode"]),
    )


def until_needed(asked: Counters, base: float) -> float:
    """Share of a step of `base` seconds before the answers are waited for: what passed until they
    were there and was not waited. If there was no need to wait, it is only a lower bound."""
    return min(1.0, max(0.0, asked.answer - asked.wait) / base)


async def baseline_parts(
    sides: ColdSides, probe: Asked, trials: Mapping[str, Trial]
) -> BaselineParts:
    """Of diffusers on one core; `trials` as `ColdSides.prepare` returns them."""
    plain = sides.request(probe)
    base = await sides.step(plain)
    with_control = await sides.step(sides.request(replace(probe, controls=1)))
    whole = await sides.pipeline(plain, {}, sides.one_core)
    kept = trials["fused" if sides.fuse else "apart"]
    return BaselineParts(
        base=base,
        control=max(0.0, with_control - base),
        lora_step=0.0 if sides.fuse else max(0.0, kept.step - base),
        adapt=kept.adapt,
        rest=max(0.0, whole.seconds - probe.steps * base),
    )


async def _lora_seconds(
    model: Path, files: Mapping[str, Path], on: Collection[int]
) -> tuple[float, float]:
    """To read one LoRA, and to merge it and restore the weights, as a denoiser does it, with one
    thread on these cores."""
    [(name, path)] = files.items()

    def measured() -> tuple[float, float]:
        os.sched_setaffinity(0, on)
        torch.set_num_threads(1)
        network = SdxlUnet.load(str(model))
        family = family_of(str(model))
        seconds = []
        for _ in range(2):  # the first one imports, and is the first to touch much of the memory
            began = time.perf_counter()
            adapter = read_adapter(name, path, family)
            read = time.perf_counter()
            network.merge([(adapter, 1.0)])
            network.merge([])
            seconds.append((read - began, time.perf_counter() - read))
        return seconds[-1]

    with ThreadPoolExecutor(1) as thread:
        return await asyncio.get_running_loop().run_in_executor(thread, measured)
