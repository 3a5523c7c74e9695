"""Add-ons, second kind: ControlNets, copies of the UNet's first half that read a hint."""

import os
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from pocket.captions import vague
from pocket.hints import HINTS
from pocket.render import Layout, draw
from pocket.scenes import Scene
from pocket.train.common.learner import Learner
from pocket.train.common.run import Run
from pocket.train.sdxl.addon import Schedule, build_stock, draw_batch, frozen_model, learn, text_of
from pocket.train.sdxl.export import build_scheduler
from pocket.train.sdxl.text import describe
from pocket.train.sdxl.unet import denoising_loss

STEPS = {"edges": 1400, "blocks": 1900, "shading": 1400}  # colours are slower to learn than places
RATE, WARMUP, SCENES = 1e-3, 100, 2048
VAGUE = 0.6  # share of captions that leave the places to the hint
EMBEDDING = (8, 16, 32, 32)  # channels of the hint's encoder; it halves thrice, as the VAE does


def build_control(unet: UNet2DConditionModel) -> ControlNetModel:
    """The UNet's first half with its weights; its additions to the UNet start at zero."""
    return ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=EMBEDDING)


def train_control(run: Run, name: str, folder: Path) -> None:
    """Train, or resume, and write a diffusers directory `<name>` with the averaged weights.

    A control that is finished already is only written.
    """
    stage, schedule = f"control-{name}", Schedule(STEPS[name], RATE, WARMUP, SCENES)
    pipeline = frozen_model(run)
    run.rng(stage, -1)  # seeds the first weights
    control = build_control(pipeline.unet).to(run.device).requires_grad_(True)
    control.set_attn_processor(AttnProcessor())  # see unet.py
    learner = Learner(run, control, schedule.rate)
    first = learner.restore(run.load(stage))
    if first < schedule.steps:
        text, levels = text_of(pipeline), build_scheduler().alphas_cumprod.to(run.device)
        stock = build_stock(run, pipeline, draw, schedule.scenes)

        def loss_at(rows: list[int], rng: random.Random) -> Tensor:
            with torch.no_grad():
                batch = draw_batch(stock, rows, text, say, rng)
            hints = hints_of(name, [stock.layouts[row] for row in rows]).to(run.device)
            return denoising_loss(guided(pipeline.unet, control, hints), batch, levels)

        learn(run, stage, learner, schedule, first, loss_at)
    write_control(folder / name, learner.average)


def say(scene: Scene, rng: random.Random) -> str:
    """A caption that leaves the places to the hint, or one as the model was trained on."""
    return vague(scene, rng) if rng.random() < VAGUE else describe(scene, rng)[0]


def hints_of(name: str, layouts: list[Layout]) -> Tensor:
    """Hints of one kind, (n, 3, SIDE, SIDE), 0 to 1."""
    hints = np.stack([HINTS[name](layout) for layout in layouts])
    return torch.from_numpy(hints).permute(0, 3, 1, 2).contiguous()


def guided(
    unet: UNet2DConditionModel, control: ControlNetModel, hints: Tensor
) -> Callable[..., Any]:
    """The UNet with the control's additions at these hints: called as the UNet is."""

    def forward(x: Tensor, t: Tensor, hidden: Tensor, added_cond_kwargs: dict[str, Tensor]) -> Any:
        down, mid = control(
            x, t, hidden, hints, added_cond_kwargs=added_cond_kwargs, return_dict=False
        )
        return unet(
            x,
            t,
            hidden,
            added_cond_kwargs=added_cond_kwargs,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
        )

    return forward


def write_control(folder: Path, control: ControlNetModel) -> None:
    """Write a diffusers directory in half precision, whole files at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        control.half().save_pretrained(name)
        for path in Path(name).iterdir():
            os.replace(path, folder / path.name)
