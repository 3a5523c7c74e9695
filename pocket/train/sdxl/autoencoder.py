"""Stage 1: the autoencoder, 128x128 RGB to 16x16 latents of 4 channels and back."""

import random

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from pocket.render import render
from pocket.scenes import CENTRES, SIDE, held_out_scenes, training_scene
from pocket.train.common.run import Run, cosine, set_rate
from pocket.verify import accuracy, read, score

CROP_STEPS, FRAME_STEPS = 1800, 500
CROP, CROPS, FRAMES = 64, 32, 8  # crop side in pixels; batch sizes of equally many pixels
RATE, WARMUP = 2e-3, 150
KL_WEIGHT = 1e-4
RECOLOURED = 0.3  # share of samples with channels permuted or inverted, so colour generalises


def build_autoencoder() -> AutoencoderKL:
    """A small SDXL-shaped autoencoder.

    One normalisation group, not many: with two channels a group, normalising a flat patch
    leaves little more than a sign, and colour would have to pass by the residual paths alone.
    """
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=1,
        sample_size=SIDE,
        mid_block_add_attention=False,
        force_upcast=False,
    )


def to_tensor(images: list[np.ndarray]) -> Tensor:
    """(n, 3, h, w) in -1..1 from sRGB bytes (h, w, 3)."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_images(pixels: Tensor) -> list[np.ndarray]:
    """The inverse of `to_tensor`."""
    scaled = (pixels.float().clamp(-1, 1) + 1) * 127.5
    return list(scaled.round().byte().permute(0, 2, 3, 1).cpu().numpy())


def train_autoencoder(run: Run) -> AutoencoderKL:
    """Train, or resume, or just load what is finished."""
    torch.manual_seed(run.seed)
    model = build_autoencoder().to(run.device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, betas=(0.9, 0.98), weight_decay=1e-3)
    first, steps = 0, CROP_STEPS + FRAME_STEPS
    if state := run.load("autoencoder"):
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    for step in range(first, steps):
        rng = run.rng("autoencoder", step)
        set_rate(optimizer, cosine(step, steps, RATE, WARMUP))
        images = _crops(rng) if step < CROP_STEPS else _frames(rng)
        pixels = to_tensor(images).to(run.device, memory_format=torch.channels_last)
        loss = _loss(run, model, pixels)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        done = step + 1
        if done % 50 == 0:
            run.log("autoencoder", done, loss=loss.item())
        if done % 250 == 0 or done == steps or run.out_of_time():
            run.log("autoencoder", done, **evaluate_autoencoder(model, run.device))
            run.save(
                "autoencoder",
                {"model": model.state_dict(), "step": done, "optimizer": optimizer.state_dict()},
            )
        if run.out_of_time():
            break
    return model.eval().requires_grad_(False)


def _loss(run: Run, model: AutoencoderKL, pixels: Tensor) -> Tensor:
    with run.half():
        posterior = model.encode(pixels).latent_dist
        decoded = model.decode(posterior.sample()).sample
    error: Tensor = decoded.float() - pixels
    divergence: Tensor = posterior.kl().mean() / posterior.mean[0].numel()
    return (
        error.abs().mean()
        + 2 * error.square().mean()
        + _opponent(error).abs().mean()
        + KL_WEIGHT * divergence.float()
    )


def _opponent(error: Tensor) -> Tensor:
    """Red minus green and yellow minus blue: errors of hue, which brightness would drown."""
    red, green, blue = error.unbind(1)
    return torch.stack([red - green, (red + green) / 2 - blue], 1)


def _crops(rng: random.Random) -> list[np.ndarray]:
    """Crops that hold at least a part of a shape."""
    crops = []
    for _ in range(CROPS):
        scene = training_scene(rng)
        x, y = CENTRES[rng.choice(scene.items).place]
        left, top = (
            min(max(int(at) + rng.randint(-24, 24) - CROP // 2, 0), SIDE - CROP) for at in (x, y)
        )
        image = _recoloured(render(scene, rng), rng)
        crops.append(image[top : top + CROP, left : left + CROP])
    return crops


def _frames(rng: random.Random) -> list[np.ndarray]:
    """Whole pictures: the statistics that group normalisation will meet in use."""
    return [render(training_scene(rng), rng) for _ in range(FRAMES)]


def _recoloured(image: np.ndarray, rng: random.Random) -> np.ndarray:
    if rng.random() > RECOLOURED:
        return image
    permuted = image[..., rng.sample(range(3), 3)]
    return 255 - permuted if rng.random() < 0.5 else permuted


@torch.no_grad()
def evaluate_autoencoder(
    model: AutoencoderKL, device: torch.device, count: int = 48
) -> dict[str, float]:
    """PSNR in dB and verifier accuracy of reconstructed held-out scenes; the latents' spread."""
    scenes = held_out_scenes(count)
    images = [render(scene, random.Random(n)) for n, scene in enumerate(scenes)]
    latents = model.encode(to_tensor(images).to(device)).latent_dist.mean
    decoded = model.decode(latents).sample
    noisy = model.decode(latents + 0.1 * latents.std() * torch.randn_like(latents)).sample
    truth = to_tensor(images).to(device)
    mse = F.mse_loss(decoded.clamp(-1, 1), truth).item() / 4  # per unit range
    read_back = [score(s, read(i)) for s, i in zip(scenes, to_images(decoded), strict=True)]
    read_noisy = [score(s, read(i)) for s, i in zip(scenes, to_images(noisy), strict=True)]
    return {
        "psnr": -10 * float(np.log10(mse)),
        "accuracy": accuracy(read_back)["all"],
        "noisy_accuracy": accuracy(read_noisy)["all"],
        "latent_std": latents.std().item(),
    }
