"""Stage 3: the UNet, with SDXL's added conditioning, on the latents of the frozen autoencoder."""

import random
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from pocket.paint import held_out_accuracy
from pocket.scenes import SIDE
from pocket.train.common.learner import Learner
from pocket.train.common.run import Run, held_then_falling
from pocket.train.common.workers import in_workers
from pocket.train.sdxl.autoencoder import train_autoencoder
from pocket.train.sdxl.export import assemble, build_scheduler, export
from pocket.train.sdxl.pool import Batch, Pool, latent_scale
from pocket.train.sdxl.text import WIDTHS, TextEncoders, train_text

STEPS, BATCH = 6800, 64
RATE, WARMUP, DECAY = 1e-3, 200, 0.3  # the rate falls only over the last DECAY of the steps
POOL_START, POOL_EVERY = 3072, 16  # entries; a batch of fresh ones every so many steps
UNCONDITIONAL, EMPTY = 0.1, 0.03  # shares trained on zeros, and on the empty caption
SAVE_EVERY, LOOK_EVERY = 500, 1000
TIME_IDS = (SIDE, SIDE, 0, 0, SIDE, SIDE)  # original size, crop, target size, as SDXL's
TIME_EMBED = 32


def build_unet() -> UNet2DConditionModel:
    """SDXL's shape: no attention at full resolution, cross-attention at the two below."""
    return UNet2DConditionModel(
        sample_size=SIDE // 8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 64, 128),
        layers_per_block=1,
        attention_head_dim=(2, 4, 8),  # diffusers' name for the number of heads
        cross_attention_dim=sum(WIDTHS),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=TIME_EMBED,
        projection_class_embeddings_input_dim=WIDTHS[1] + len(TIME_IDS) * TIME_EMBED,
        norm_num_groups=8,
    )


def train_unet(run: Run, vae: AutoencoderKL, text: TextEncoders) -> UNet2DConditionModel:
    """Train, or resume, or just load what is finished. Returns the averaged weights."""
    in_workers(run, _job)
    state = run.load("unet")
    assert state, "the workers end by saving"
    average = build_unet().to(run.device)
    average.load_state_dict(state["average"])
    vae.register_to_config(scaling_factor=state["scale"])
    return average.requires_grad_(False)


def _job(run: Run) -> None:
    _train(run, train_autoencoder(run), train_text(run))


def _train(run: Run, vae: AutoencoderKL, text: TextEncoders) -> None:
    torch.manual_seed(run.seed)
    model = build_unet().to(run.device)
    model.set_attn_processor(AttnProcessor())  # the fused kernel's CPU backward is 3x slower
    learner = Learner(run, model, RATE)
    state = run.load("unet")
    first = learner.restore(state)
    if first == STEPS:
        return
    scale = state["scale"] if state else latent_scale(run, vae)
    vae.register_to_config(scaling_factor=scale)
    pool, empty = Pool(run, vae, text, scale), text([""])
    pool.fill("pool", POOL_START, BATCH, first)
    levels = build_scheduler().alphas_cumprod.to(run.device)
    recent: list[float] = []
    for step, (batch, rng) in enumerate(pool.batches("unet", BATCH, POOL_EVERY, first), first):
        with run.half():
            loss = denoising_loss(model, drop(batch, empty, rng), levels)
        rate = held_then_falling(step, STEPS, RATE, WARMUP, DECAY)
        done, out_of_time = step + 1, learner.learn(step, loss, rate)
        recent.append(loss.item())
        stop = done == STEPS or out_of_time
        if done % 100 == 0:
            run.log("unet", done, loss=sum(recent) / len(recent), rate=rate)
            recent.clear()
        if done % SAVE_EVERY == 0 or stop:
            run.save("unet", learner.state(done) | {"scale": scale})
        if (done % LOOK_EVERY == 0 or stop) and run.rank == 0:
            pipeline = assemble(vae, text, learner.average)
            run.log("unet", done, **held_out_accuracy(pipeline, steps=15, guidance=2.0))
            export(run.folder / "pocket-sdxl", vae, text, learner.average)
        if stop:
            return


def denoising_loss(model: Callable[..., Any], batch: Batch, levels: Tensor) -> Tensor:
    """Mean square error of v = sqrt(a) e - sqrt(1 - a) x0. https://arxiv.org/abs/2202.00512

    `levels` are the 1000 values of a; timesteps are stratified over the batch.
    """
    x0, count = batch.latents, len(batch.latents)
    strata = torch.arange(count, device=x0.device) + torch.rand(count, device=x0.device)
    t = (strata * len(levels) / count).long()
    a = levels[t].view(-1, 1, 1, 1)
    e = torch.randn_like(x0)
    time_ids = torch.tensor([TIME_IDS], device=x0.device).expand(count, -1)
    v = model(
        a.sqrt() * x0 + (1 - a).sqrt() * e,
        t,
        batch.hidden,
        added_cond_kwargs={"text_embeds": batch.pooled, "time_ids": time_ids},
    ).sample
    return F.mse_loss(v.float(), a.sqrt() * e - (1 - a).sqrt() * x0)


def drop(batch: Batch, empty: tuple[Tensor, Tensor], rng: random.Random) -> Batch:
    """Take the conditioning from some rows, for classifier-free guidance."""
    for row in range(len(batch.latents)):
        draw = rng.random()
        if draw < UNCONDITIONAL:
            batch.hidden[row], batch.pooled[row] = 0, 0
        elif draw < UNCONDITIONAL + EMPTY:
            batch.hidden[row], batch.pooled[row] = empty[0][0], empty[1][0]
    return batch
