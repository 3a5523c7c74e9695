"""What the trainings of LoRAs and ControlNets share: the frozen model, the data, the loop.

Pictures are encoded once for a whole short training. What else an add-on sees of a scene, a
caption or a hint, is made anew each time it is drawn: both are cheap.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import StableDiffusionXLPipeline
from diffusers.models.attention_processor import AttnProcessor
from numpy import uint8
from numpy.typing import NDArray
from torch import Tensor

from pocket.paint import load
from pocket.render import Layout, lay_out
from pocket.scenes import Scene, training_scene
from pocket.train.common.learner import Learner
from pocket.train.common.run import Run, cosine
from pocket.train.sdxl.autoencoder import to_tensor
from pocket.train.sdxl.pool import Batch
from pocket.train.sdxl.text import TextEncoders
from pocket.train.sdxl.unet import drop

BATCH = 16
LOG_EVERY, SAVE_EVERY = 50, 200
ENCODED_AT_ONCE = 32

LossAt = Callable[[list[int], random.Random], Tensor]
"""The loss on these rows of the stock."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A short training: its steps, its learning rate (a cosine), the scenes it draws from."""

    steps: int
    rate: float
    warmup: int
    scenes: int


@dataclass(frozen=True, slots=True)
class Stock:
    """Scenes, where their shapes lie, and the latents (n, 4, 16, 16) of their pictures."""

    scenes: list[Scene]
    layouts: list[Layout]
    latents: Tensor


def frozen_model(run: Run) -> StableDiffusionXLPipeline:
    """The shipped model, none of whose own weights learn any more."""
    pipeline = load(device=str(run.device))
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2):
        part.requires_grad_(False)
    pipeline.unet.set_attn_processor(AttnProcessor())  # see unet.py
    return pipeline


def text_of(pipeline: StableDiffusionXLPipeline) -> TextEncoders:
    """The pipeline's own text encoders."""
    return TextEncoders(pipeline.tokenizer, pipeline.text_encoder, pipeline.text_encoder_2)


@torch.no_grad()
def build_stock(
    run: Run,
    pipeline: StableDiffusionXLPipeline,
    style: Callable[[Layout], NDArray[uint8]],
    count: int,
) -> Stock:
    """`count` training scenes drawn in a style: the same ones for every style of one seed."""
    rng = run.rng("stock", 0)
    scenes = [training_scene(rng) for _ in range(count)]
    layouts = [lay_out(scene, rng) for scene in scenes]
    latents = []
    for start in range(0, count, ENCODED_AT_ONCE):
        pictures = [style(layout) for layout in layouts[start : start + ENCODED_AT_ONCE]]
        pixels = to_tensor(pictures).to(run.device, memory_format=torch.channels_last)
        with run.half():
            latents.append(pipeline.vae.encode(pixels).latent_dist.mean.float())
    scale = pipeline.vae.config.scaling_factor
    return Stock(scenes, layouts, (torch.cat(latents) * scale).contiguous())


def draw_batch(
    stock: Stock,
    rows: list[int],
    text: TextEncoders,
    say: Callable[[Scene, random.Random], str],
    rng: random.Random,
) -> Batch:
    """These rows with fresh captions, some of them without conditioning, for guidance."""
    captions = [say(stock.scenes[row], rng) for row in rows]
    hidden, pooled = text([*captions, ""])
    batch = Batch(stock.latents[rows], hidden[:-1].clone(), pooled[:-1].clone())
    return drop(batch, (hidden[-1:].detach(), pooled[-1:].detach()), rng)


def learn(
    run: Run, stage: str, learner: Learner, schedule: Schedule, first: int, loss_at: LossAt
) -> None:
    """Go from step `first` to the end, or until time is out. Ends with a checkpoint."""
    recent: list[float] = []
    for step in range(first, schedule.steps):
        rng = run.rng(stage, step)
        loss = loss_at(rng.sample(range(schedule.scenes), BATCH), rng)
        rate = cosine(step, schedule.steps, schedule.rate, schedule.warmup)
        done, stop = step + 1, learner.learn(step, loss, rate)
        recent.append(loss.item())
        if done % LOG_EVERY == 0:
            run.log(stage, done, loss=sum(recent) / len(recent))
            recent.clear()
        if done % SAVE_EVERY == 0 or done == schedule.steps or stop:
            run.save(stage, learner.state(done))
        if stop:
            return
