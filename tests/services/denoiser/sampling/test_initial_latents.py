"""Rows that begin from an image give what diffusers' img2img and inpaint pipelines give."""

from functools import cache
from typing import Any

import msgspec
import pytest
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLInpaintPipeline
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from PIL import Image as Pil

from services.denoiser.forward.step import Batch, step
from services.denoiser.rows.row import Row
from services.denoiser.sampling.initial_latents import SourceImage
from services.denoiser.sampling.noise_schedule import make_scheduler
from services.denoiser.sampling.step_table import build_step_table
from services.vae.autoencoder import Autoencoder
from services.vae.source_image import read_source_image
from shared.jobs.edits import taken
from shared.jobs.graph import image_parameters
from shared.messages import EditSpec
from shared.models.samplers.samplers import SAMPLERS
from tests.helpers import factories, pictures
from tests.services.denoiser.models import conditioning, make_row, network
from tests.services.denoiser.sampling.test_step_table import SDXL

SIZE = (64, 64)
BOX = (16, 8, 48, 40)
PICTURE, MASK = pictures.picture(SIZE), pictures.mask(SIZE, BOX)
HOLES = Pil.new("L", SIZE, 0)
HOLES.paste(255, BOX)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with a tiny random autoencoder, whose latents are far from certain."""
    root = tmp_path_factory.mktemp("model")
    torch.manual_seed(3)
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 4, 4, 4),
        latent_channels=4,
        norm_num_groups=1,
        sample_size=64,
        scaling_factor=0.5,
    ).save_pretrained(root / "vae")
    (root / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}')
    return str(root)


@cache
def autoencoder(source: str) -> Autoencoder:
    return Autoencoder(source, "cpu", torch.float32)


def image(source: str, masked: bool, strength: float) -> SourceImage:
    """As the vae service and the denoiser make it of the files."""
    edit = EditSpec(strength=strength, mask="file" if masked else "none", mask_mode="exact")
    plain = factories.spec(width=SIZE[0], height=SIZE[1])
    spec = msgspec.structs.replace(plain, edit=edit)
    opened = read_source_image(
        image_parameters(spec), pictures.file(PICTURE), pictures.file(MASK) if masked else None
    )
    [posterior] = autoencoder(source).encode([opened.pixels])
    mask = opened.latent_mask(8)
    return SourceImage(
        posterior.mean[None],
        posterior.std[None],
        None if mask is None else mask[None],
        pure=masked and strength == 1.0,
    )


def edited(
    source: str, masked: bool, strength: float, sampler: str, steps: int, **fields: Any
) -> Row:
    """The row of an edit; see `make_row`."""
    table = build_step_table(
        SDXL, sampler, steps, start=steps - taken(steps, strength, rounds_up=False)
    )
    return make_row(table=table, image=image(source, masked, strength), **fields)


@torch.inference_mode()
def with_diffusers(
    source: str, masked: bool, strength: float, sampler: str, steps: int, **changes: Any
) -> torch.Tensor:
    """The final latents of diffusers' own pipeline."""
    asked: dict[str, Any] = {"seed": 1, "guidance": 5.0, "prompt": "a red cube"} | changes
    kind = StableDiffusionXLInpaintPipeline if masked else StableDiffusionXLImg2ImgPipeline
    scheduler = make_scheduler(SDXL, SAMPLERS[sampler])
    vae = AutoencoderKL.from_pretrained(source, subfolder="vae")
    pipe: Any = kind(vae, None, None, None, None, network().module, scheduler)
    pipe.register_to_config(requires_aesthetics_score=False)
    pipe.set_progress_bar_config(disable=True)
    cond, uncond = conditioning(asked["prompt"]), conditioning("nothing")
    masks = {"mask_image": HOLES, "width": SIZE[0], "height": SIZE[1]} if masked else {}
    latents: torch.Tensor = pipe(
        image=PICTURE,
        prompt_embeds=cond.tensors["embeds"],
        pooled_prompt_embeds=cond.tensors["pooled"],
        negative_prompt_embeds=uncond.tensors["embeds"],
        negative_pooled_prompt_embeds=uncond.tensors["pooled"],
        strength=strength,
        num_inference_steps=steps,
        guidance_scale=asked["guidance"],
        generator=torch.Generator("cpu").manual_seed(asked["seed"]),
        output_type="latent",
        **masks,
    ).images
    return latents


def finished(*rows: Row) -> list[torch.Tensor]:
    """Their final latents, when they run together for as long as there is one."""
    running = list(rows)
    while running:
        stepped = step(network(), Batch.of(running, network()))
        for i, row in enumerate(running):
            row.latents, row.x0_prev = stepped.x[i : i + 1], stepped.x0[i : i + 1]
            row.step += 1
        running = [row for row in running if not row.finished]
    return [row.latents for row in rows]


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-3)


SAMPLER_NAMES = ["euler", "euler_ancestral", "ddim", "dpmpp_2m"]
OTHERS = ["dpmpp_2m_sde_karras", "heun_karras", "lcm", "tcd"]


@pytest.mark.parametrize("masked", [False, True], ids=["img2img", "inpaint"])
@pytest.mark.parametrize("strength", [0.3, 0.6, 1.0])
@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_an_edit_is_diffusers_edit(
    source: str, sampler: str, strength: float, masked: bool
) -> None:
    steps = 16 if strength == 0.3 else 7
    [found] = finished(edited(source, masked, strength, sampler, steps))
    assert_close(found, with_diffusers(source, masked, strength, sampler, steps))


@pytest.mark.parametrize("masked", [False, True], ids=["img2img", "inpaint"])
@pytest.mark.parametrize("sampler", OTHERS)
def test_an_edit_with_another_sampler_is_diffusers_edit(
    source: str, sampler: str, masked: bool
) -> None:
    [found] = finished(edited(source, masked, 0.6, sampler, 7))
    assert_close(found, with_diffusers(source, masked, 0.6, sampler, 7))


def test_edits_and_rows_from_noise_share_their_steps(source: str) -> None:
    plans = [(m, s, sampler) for m, s in ((True, 0.7), (False, 0.4)) for sampler in SAMPLER_NAMES]
    rows = [edited(source, m, s, sampler, 8, seed=k) for k, (m, s, sampler) in enumerate(plans)]
    plain = [make_row(seed=9, steps=8), make_row(seed=10, steps=5, sampler="dpmpp_2m")]
    alone = finished(make_row(seed=9, steps=8)) + finished(
        make_row(seed=10, steps=5, sampler="dpmpp_2m")
    )
    found = finished(*plain, *rows)
    for together, by_itself in zip(found, alone, strict=False):
        assert_close(together, by_itself)
    for k, (latents, (m, s, sampler)) in enumerate(zip(found[2:], plans, strict=True)):
        assert_close(latents, with_diffusers(source, m, s, sampler, 8, seed=k))


def test_a_row_without_an_image_is_untouched_by_those_that_keep_one(source: str) -> None:
    row, edit = make_row(), edited(source, True, 0.5, "euler", 6)
    batch = Batch.of([row, edit], network())
    assert batch.mask_blend is not None
    x = torch.randn(2, *row.latents.shape[1:])
    blended = batch.mask_blend.over(x, torch.randn_like(x))
    assert torch.equal(blended[0], x[0])
    assert not torch.equal(blended[1], x[1])


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_an_edit_that_is_resumed_ends_as_if_it_had_not_stopped(source: str, sampler: str) -> None:
    [expected] = finished(edited(source, True, 0.8, sampler, 10))
    row = edited(source, True, 0.8, sampler, 10)
    for _ in range(3):
        stepped = step(network(), Batch.of([row], network()))
        row.latents, row.x0_prev = stepped.x, stepped.x0
        row.step += 1
    again = edited(source, True, 0.8, sampler, 10).resume(row.step, row.checkpoint())
    assert torch.equal(finished(again)[0], expected)


def test_what_a_mask_keeps_is_in_the_previews_too(source: str) -> None:
    row = edited(source, True, 0.8, "euler", 10)
    stepped = step(network(), Batch.of([row], network()))
    row.x0_prev = stepped.x0
    assert row.mask_blend is not None
    outside = row.mask_blend.mask.expand_as(row.x0_prev) == 0
    assert torch.equal(row.predicted[outside], row.mask_blend.image[outside])
    assert torch.equal(row.predicted[~outside], row.x0_prev[~outside])
