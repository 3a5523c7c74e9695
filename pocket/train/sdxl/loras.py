"""Add-ons, first kind: one small LoRA a style, on the frozen model."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from torch import Tensor

from pocket.scenes import Scene
from pocket.styles import STYLES
from pocket.train.common.learner import Learner
from pocket.train.common.run import Run
from pocket.train.sdxl.adapters import Adapters, targets, write_lora
from pocket.train.sdxl.addon import Schedule, build_stock, draw_batch, frozen_model, learn, text_of
from pocket.train.sdxl.export import build_scheduler
from pocket.train.sdxl.text import describe
from pocket.train.sdxl.unet import denoising_loss

SCHEDULE = Schedule(steps=600, rate=4e-3, warmup=50, scenes=1024)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one style is learnt and written."""

    style: str
    rank: int
    alpha: float
    kohya: bool = False  # whose names the file uses, and whether it holds alphas
    text: bool = False  # whether the text encoders are adapted too


RECIPES: Final = {
    recipe.style: recipe
    for recipe in (
        Recipe("outline", rank=8, alpha=8),
        Recipe("stripes", rank=8, alpha=8),
        Recipe("neon", rank=8, alpha=4, kohya=True),
        Recipe("pastel", rank=4, alpha=4, text=True),
    )
}


def train_lora(run: Run, style: str, folder: Path) -> None:
    """Train, or resume, and write `<style>.safetensors` with the averaged weights.

    A style that is finished already is only written.
    """
    recipe, stage = RECIPES[style], f"lora-{style}"
    pipeline = frozen_model(run)
    layers = targets(pipeline, recipe.text)
    run.rng(stage, -1)  # seeds the first weights
    adapters = Adapters(layers, recipe.rank, recipe.alpha).to(run.device)
    learner = Learner(run, adapters, SCHEDULE.rate)
    adapters.attach(layers)
    first = learner.restore(run.load(stage))
    if first < SCHEDULE.steps:
        text, levels = text_of(pipeline), build_scheduler().alphas_cumprod.to(run.device)
        stock = build_stock(run, pipeline, STYLES[style], SCHEDULE.scenes)

        def loss_at(rows: list[int], rng: random.Random) -> Tensor:
            batch = draw_batch(stock, rows, text, say, rng)
            return denoising_loss(pipeline.unet, batch, levels)

        learn(run, stage, learner, SCHEDULE, first, loss_at)
    write_lora(folder / f"{style}.safetensors", learner.average, recipe.kohya)


def say(scene: Scene, rng: random.Random) -> str:
    """A caption as the model itself was trained on."""
    return describe(scene, rng)[0]
