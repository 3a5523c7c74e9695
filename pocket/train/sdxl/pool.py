"""A ring of ready-made training pairs, so that a step costs only the painter.

Each entry is one fresh scene, rendered and encoded once, with one caption of it. An entry is
used some sixteen times before a newer one takes its place, so nothing is ever learnt by heart.
"""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from pocket.render import render
from pocket.scenes import training_scene
from pocket.train.common.run import Run
from pocket.train.sdxl.autoencoder import to_tensor
from pocket.train.sdxl.text import Encoders, describe

CAPACITY = 16_384  # entries; about 23 KB each, 13 for FLUX


@dataclass(frozen=True, slots=True)
class Batch:
    """Latents (n, 4, 16, 16) of unit spread, hidden states and pooled,
    as the text side gives them: for SDXL (n, 40, 224) and (n, 128)."""

    latents: Tensor
    hidden: Tensor
    pooled: Tensor


@dataclass(slots=True)
class Pool:
    """The ring. `scale` brings the autoencoder's latents to unit spread."""

    run: Run
    vae: AutoencoderKL
    text: Encoders
    scale: float
    entries: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    oldest: int = 0

    @torch.no_grad()
    def add(self, count: int, rng: random.Random) -> None:
        """Add `count` fresh pairs, in place of the oldest ones once the ring is full."""
        scenes = [training_scene(rng) for _ in range(count)]
        pixels = to_tensor([render(scene, rng) for scene in scenes]).to(self.run.device)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        captions = [describe(scene, rng)[0] for scene in scenes]
        with self.run.half():
            latents = self.vae.encode(pixels).latent_dist.mean.float() * self.scale
            hidden, pooled = self.text(captions)
        fresh = zip(latents.contiguous(), hidden.bfloat16(), pooled.bfloat16(), strict=True)
        for entry in fresh:
            if len(self.entries) < CAPACITY // self.run.world:
                self.entries.append(entry)
            else:
                self.entries[self.oldest] = entry
                self.oldest = (self.oldest + 1) % len(self.entries)

    def fill(self, stage: str, entries: int, batch: int, first: int) -> None:
        """Add so many at once, in batches that all workers share; of a run that goes on from step
        `first` others than it began with."""
        for n in range(entries // batch):
            self.add(batch // self.run.world, self.run.rng(stage, first * 1000 + n))

    def batches(
        self, stage: str, batch: int, every: int, first: int
    ) -> Iterator[tuple["Batch", random.Random]]:
        """This worker's share of each step's batch, without end, and what the step's chance is: it
        depends on the step alone. A share of fresh entries is added once in `every` steps."""
        count = batch // self.run.world
        for step in itertools.count(first):
            rng = self.run.rng(stage, step)
            if step % every == 0:
                self.add(count, rng)
            yield self.draw(count, rng), rng

    def draw(self, count: int, rng: random.Random) -> Batch:
        """`count` distinct entries."""
        latents, hidden, pooled = zip(*rng.sample(self.entries, count), strict=True)
        return Batch(torch.stack(latents), torch.stack(hidden).float(), torch.stack(pooled).float())


@torch.no_grad()
def latent_scale(run: Run, vae: AutoencoderKL, count: int = 256) -> float:
    """What SDXL calls the scaling factor: the inverse of the latents' root mean square."""
    rng = random.Random(run.seed)  # the same for every worker
    images = [render(training_scene(rng), rng) for _ in range(count)]
    squares = [
        vae.encode(to_tensor(images[n : n + 32]).to(run.device)).latent_dist.mean.square().mean()
        for n in range(0, count, 32)
    ]
    return float(torch.stack(squares).mean().rsqrt())
