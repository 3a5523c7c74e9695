"""pocket-flux: a FLUX transformer that learns straight flows to the latents of pocket-sdxl's vae.

Rectified flow, https://arxiv.org/abs/2209.03003: x_t = (1 - t) x0 + t e, and the network says
e - x0.
"""

import random
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel
from torch import Tensor, nn

from pocket.paint import MODEL, held_out_accuracy
from pocket.scenes import SIDE
from pocket.train.common.learner import Learner
from pocket.train.common.run import Run, held_then_falling
from pocket.train.common.workers import in_workers
from pocket.train.flux.export import GUIDANCE, SHIFT, assemble_flux, export_flux
from pocket.train.flux.export import STEPS as SAMPLING_STEPS
from pocket.train.flux.forward import FluxForward
from pocket.train.flux.t5_tokenizer import MAX_SEQUENCE_LENGTH
from pocket.train.flux.text import WIDTH, FluxText, train_flux_text
from pocket.train.sdxl.pool import Batch, Pool

STEPS, BATCH = 6000, 48
RATE, WARMUP, DECAY = 1e-3, 200, 0.3  # the rate falls only over the last DECAY of the steps
POOL_START, POOL_EVERY = 2048, 16  # entries; a batch of fresh ones every so many steps
EMPTY = 0.1  # share trained on the empty caption
SAVE_SECONDS, LOOK_EVERY, AGREE_EVERY = 100.0, 500, 20
LENGTH_FILE = "flux-steps"
"""In the work folder: another number of steps than STEPS, read as the run goes."""

HEADS, HEAD_SIZE = 3, 64
TOKENS = SIDE // 16  # in a row of the picture: latents have an eighth of its side, in pairs


def build_flux() -> FluxTransformer2DModel:
    """FLUX's shape. Starts as the zero function, each block as the identity: gates are zero."""
    model = FluxTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=4,
        attention_head_dim=HEAD_SIZE,
        num_attention_heads=HEADS,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=(8, 28, 28),
    )
    norms = [block.norm for block in model.single_transformer_blocks]
    for block in model.transformer_blocks:
        norms += [block.norm1, block.norm1_context]
    for layer in (*(norm.linear for norm in norms), model.norm_out.linear, model.proj_out):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return model


def frozen_vae(run: Run) -> AutoencoderKL:
    """pocket-sdxl's, with the shift that FluxPipeline asks for: none."""
    vae = AutoencoderKL.from_pretrained(MODEL, subfolder="vae", local_files_only=True)
    vae.register_to_config(shift_factor=0.0, _name_or_path=MODEL.name)
    return vae.to(run.device).eval().requires_grad_(False)


def train_flux(run: Run) -> tuple[AutoencoderKL, FluxText, FluxTransformer2DModel]:
    """Train, or resume, or just load what is finished. The weights returned are averages."""
    text = train_flux_text(run)
    in_workers(run, _job)
    state = run.load("flux")
    assert state, "the workers end by saving"
    average = build_flux().to(run.device)
    average.load_state_dict(state["average"])
    return frozen_vae(run), text, average.requires_grad_(False)


def _job(run: Run) -> None:
    torch.manual_seed(run.seed)
    text, vae, model = train_flux_text(run), frozen_vae(run), build_flux().to(run.device)
    learner = Learner(run, model, RATE)
    forward = FluxForward(model, MAX_SEQUENCE_LENGTH, TOKENS)
    first, steps = learner.restore(run.load("flux")), _length(run)
    if first >= steps:
        return
    pool, empty = Pool(run, vae, text, vae.config.scaling_factor), text([""])
    pool.fill("flux-pool", POOL_START, BATCH, first)
    recent: list[Tensor] = []
    saved = time.monotonic()
    for step, (batch, rng) in enumerate(pool.batches("flux", BATCH, POOL_EVERY, first), first):
        loss = flow_loss(forward, _emptied(batch, empty, rng))
        rate = held_then_falling(step, steps, RATE, WARMUP, DECAY)
        done, stop = step + 1, learner.learn(step, loss, rate)
        recent.append(loss.detach())
        if done % AGREE_EVERY == 0:
            steps = _length(run)
        stop |= done >= steps
        if done % 100 == 0:
            run.log("flux", done, loss=torch.stack(recent).mean().item(), rate=rate)
            recent.clear()
        if stop or time.monotonic() - saved > SAVE_SECONDS:
            run.save("flux", learner.state(done))
            saved = time.monotonic()
        if (stop or done % LOOK_EVERY == 0) and run.rank == 0:
            pipeline = assemble_flux(vae, text, learner.average)
            accuracy = held_out_accuracy(pipeline, steps=SAMPLING_STEPS, guidance=GUIDANCE)
            run.log("flux", done, **accuracy)
            export_flux(run.folder / "pocket-flux", vae, text, learner.average)
        if stop:
            return


def _length(run: Run) -> int:
    """How many steps this run shall have: all workers hear the same."""
    path = run.folder / LENGTH_FILE
    steps = torch.tensor(int(path.read_text()) if path.exists() else STEPS)
    if run.world > 1:
        torch.distributed.broadcast(steps, 0)
    return int(steps)


def _emptied(batch: Batch, empty: tuple[Tensor, Tensor], rng: random.Random) -> Batch:
    """Take the caption from some rows, for classifier-free guidance."""
    for row in range(len(batch.latents)):
        if rng.random() < EMPTY:
            batch.hidden[row], batch.pooled[row] = empty[0][0], empty[1][0]
    return batch


def flow_loss(forward: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor], batch: Batch) -> Tensor:
    """Mean square error of e - x0, at times stratified over the batch, shifted like sampling's."""
    count = len(batch.latents)
    x0 = FluxPipeline._pack_latents(batch.latents, *batch.latents.shape)
    strata = torch.arange(count, device=x0.device) + torch.rand(count, device=x0.device)
    t = strata / count
    t = SHIFT * t / (1 + (SHIFT - 1) * t)
    e, at = torch.randn_like(x0), t[:, None, None]
    return F.mse_loss(forward((1 - at) * x0 + at * e, t, batch.hidden, batch.pooled), e - x0)
