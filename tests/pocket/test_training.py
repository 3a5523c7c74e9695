"""The parts of the training recipe that can be wrong without anyone noticing."""

import random
from pathlib import Path

import pytest
import torch

from pocket.scenes import Item, Scene, held_out_scenes
from pocket.train.common.learner import flatten
from pocket.train.common.probe import OPEN, targets
from pocket.train.common.run import Run, cosine, held_then_falling
from pocket.train.sdxl.autoencoder import build_autoencoder, to_images, to_tensor
from pocket.train.sdxl.text import build_text, describe
from pocket.train.sdxl.unet import build_unet


def test_a_checkpoint_comes_back_and_steps_draw_the_same_randomness_again(tmp_path: Path) -> None:
    run = Run(tmp_path, seed=3, device=torch.device("cpu"))
    assert run.load("unet") is None
    run.save("unet", {"step": 7})
    assert run.load("unet") == {"step": 7}
    assert run.rng("unet", 7).random() == run.rng("unet", 7).random()
    assert run.rng("unet", 7).random() != run.rng("unet", 8).random()


def test_only_the_first_worker_writes(tmp_path: Path) -> None:
    run = Run(tmp_path, seed=3, device=torch.device("cpu"), rank=1, world=2)
    run.save("unet", {"step": 7})
    run.log("unet", 7, loss=1.0)
    assert list(tmp_path.iterdir()) == []


def test_pictures_survive_the_way_into_tensors_and_back() -> None:
    image = (torch.rand(128, 128, 3) * 255).byte().numpy()
    assert (to_images(to_tensor([image]))[0] == image).all()


def test_what_a_caption_leaves_open_is_not_a_target() -> None:
    scene = Scene((Item("large", "red", "circle", "left"),), "white")
    full, terse = targets(scene), targets(scene, frozenset({"size", "background"}))
    assert full[:3] == [0, 0, 1]
    assert terse[:3] == [0, 0, OPEN]
    assert (full[-1], terse[-1]) == (0, OPEN)
    assert full[3:-1] == terse[3:-1]


def test_text_tensors_have_sdxl_s_layout_and_pool_at_the_first_end_token() -> None:
    torch.manual_seed(0)
    text = build_text()
    text.modules().eval()
    captions = [str(scene) for scene in held_out_scenes(3)]
    hidden, pooled = text(captions)
    assert (tuple(hidden.shape), tuple(pooled.shape)) == ((3, 40, 224), (3, 128))
    assert not torch.allclose(pooled[0], pooled[1])


def test_the_autoencoder_scales_by_eight() -> None:
    latents = build_autoencoder().encode(torch.zeros(1, 3, 64, 64)).latent_dist.mean
    assert tuple(latents.shape) == (1, 4, 8, 8)


def test_flattened_weights_are_the_model_s_own() -> None:
    model = build_unet()
    flat, gradient = flatten(model)
    assert flat.numel() == sum(p.numel() for p in model.parameters())
    flat.data.fill_(0.5)
    assert all((p == 0.5).all() for p in model.parameters())
    model.conv_in.bias.sum().backward()
    assert gradient.sum() == model.conv_in.bias.numel()


def test_rates_warm_up_and_end_near_zero() -> None:
    assert held_then_falling(0, 1000, 1.0, 100, 0.3) < 1 / 50
    assert held_then_falling(600, 1000, 1.0, 100, 0.3) == 1.0
    assert held_then_falling(600, 9000, 1.0, 100, 0.3) == 1.0
    assert held_then_falling(850, 1000, 1.0, 100, 0.3) == pytest.approx(0.5)
    assert held_then_falling(999, 1000, 1.0, 100, 0.3) == pytest.approx(0.01)
    assert cosine(0, 100, 1.0, 10) == pytest.approx(0.1)
    assert cosine(100, 100, 1.0, 10) == pytest.approx(0.01)


def test_captions_drawn_in_training_differ_from_step_to_step() -> None:
    rng = random.Random(0)
    scene = held_out_scenes(1)[0]
    assert len({describe(scene, rng)[0] for _ in range(50)}) > 20
