"""Rows of a part of the steps, and rows that go on from another one's latents, against diffusers'
own pipelines of a base and a refiner."""

from functools import cache
from typing import Any, Final

import pytest
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from services.denoiser.rows.row import Row
from services.denoiser.sampling.initial_latents import SourceImage
from services.denoiser.sampling.noise_schedule import make_scheduler
from services.denoiser.sampling.schedule_part import WHOLE, SchedulePart
from services.denoiser.sampling.step_table import build_step_table
from shared.errors import InvalidRequest
from shared.jobs.edits import taken
from shared.models.samplers.samplers import SAMPLERS
from tests.services.denoiser.models import conditioning, make_row, network
from tests.services.denoiser.sampling.test_initial_latents import assert_close, finished
from tests.services.denoiser.sampling.test_step_table import SDXL

STEPS, SPLIT = 7, 0.6
NAMES = ["euler", "euler_ancestral", "ddim", "dpmpp_2m", "dpmpp_2m_sde_karras", "heun_karras"]
FIRST: Final[dict[str, Any]] = {"prompt": "a red cube", "seed": 1}
SECOND: Final[dict[str, Any]] = {"prompt": "a blue ball", "seed": 2}


@cache
def autoencoder() -> AutoencoderKL:
    """Of which pipelines only want to know that it makes eight pixels of a position."""
    kinds = {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
    }
    return AutoencoderKL(**kinds, block_out_channels=(2, 2, 2, 2), norm_num_groups=1)


@torch.inference_mode()
def with_diffusers(kind: Any, sampler: str, prompt: str, seed: int, **asked: Any) -> torch.Tensor:
    """The latents that a pipeline ends with."""
    scheduler = make_scheduler(SDXL, SAMPLERS[sampler])
    pipe = kind(autoencoder(), None, None, None, None, network().module, scheduler)
    if kind is StableDiffusionXLImg2ImgPipeline:
        pipe.register_to_config(requires_aesthetics_score=False)
    pipe.set_progress_bar_config(disable=True)
    cond, uncond = conditioning(prompt), conditioning("nothing")
    latents: torch.Tensor = pipe(
        prompt_embeds=cond.tensors["embeds"],
        pooled_prompt_embeds=cond.tensors["pooled"],
        negative_prompt_embeds=uncond.tensors["embeds"],
        negative_pooled_prompt_embeds=uncond.tensors["pooled"],
        num_inference_steps=STEPS,
        guidance_scale=5.0,
        generator=torch.Generator("cpu").manual_seed(seed),
        output_type="latent",
        **asked,
    ).images
    return latents


def drawn(sampler: str, **asked: Any) -> torch.Tensor:
    size: dict[str, Any] = {"width": 64, "height": 64}
    return with_diffusers(StableDiffusionXLPipeline, sampler, **FIRST, **size, **asked)


def refined(sampler: str, image: torch.Tensor, **asked: Any) -> torch.Tensor:
    kind = StableDiffusionXLImg2ImgPipeline
    return with_diffusers(kind, sampler, **SECOND, image=image, **asked)


def base(sampler: str, part: SchedulePart = WHOLE) -> Row:
    table = build_step_table(SDXL, sampler, STEPS, part=part)
    return make_row(**FIRST, table=table)


def refiner(sampler: str, latents: torch.Tensor, part: SchedulePart) -> Row:
    table = build_step_table(SDXL, sampler, STEPS, part=part)
    return make_row(**SECOND, table=table, image=SourceImage(latents, None, noised=False))


def second_pass(sampler: str, latents: torch.Tensor, strength: float) -> Row:
    start = STEPS - taken(STEPS, strength, rounds_up=False)
    table = build_step_table(SDXL, sampler, STEPS, start=start)
    return make_row(**SECOND, table=table, image=SourceImage(latents, None))


@pytest.mark.parametrize("sampler", NAMES)
def test_a_base_and_a_refiner_split_the_steps_as_in_diffusers(sampler: str) -> None:
    half_drawn = drawn(sampler, denoising_end=SPLIT)
    company = make_row(seed=9, steps=4)
    [found, _] = finished(base(sampler, SchedulePart(end=SPLIT)), company)
    assert_close(found, half_drawn)
    [ended] = finished(refiner(sampler, found, SchedulePart(start=SPLIT)))
    assert_close(ended, refined(sampler, half_drawn, denoising_start=SPLIT))


@pytest.mark.parametrize("sampler", NAMES)
def test_a_part_in_the_middle_is_that_of_diffusers(sampler: str) -> None:
    latents = drawn(sampler, denoising_end=0.3)
    expected = refined(sampler, latents, denoising_start=0.3, denoising_end=0.8)
    [found] = finished(refiner(sampler, latents, SchedulePart(0.3, 0.8)))
    assert_close(found, expected)


@pytest.mark.parametrize("sampler", NAMES)
def test_a_second_pass_begins_from_latents_as_in_diffusers(sampler: str) -> None:
    latents = drawn(sampler)
    [found] = finished(base(sampler))
    assert_close(found, latents)
    [again] = finished(second_pass(sampler, found, 0.6))
    assert_close(again, refined(sampler, latents, strength=0.6))


def test_a_row_that_goes_on_from_latents_is_resumed_where_it_was() -> None:
    [latents] = finished(base("dpmpp_2m", SchedulePart(end=SPLIT)))
    row = refiner("dpmpp_2m", latents, SchedulePart(start=SPLIT))
    assert row.table.steps == 3
    [expected] = finished(refiner("dpmpp_2m", latents, SchedulePart(start=SPLIT)))
    row = refiner("dpmpp_2m", torch.zeros_like(latents), SchedulePart(start=SPLIT))
    assert torch.equal(finished(row.resume(0, {"latents": latents}))[0], expected)


@pytest.mark.parametrize("sampler", NAMES)
def test_two_parts_are_all_the_steps(sampler: str) -> None:
    whole = build_step_table(SDXL, sampler, STEPS)
    parts = SchedulePart(end=0.5), SchedulePart(start=0.5)
    split = [build_step_table(SDXL, sampler, STEPS, part=part) for part in parts]
    times = [t for table in split for t in table.t]
    overlap = len(times) - len(whole.t)  # of second-order samplers, a step is begun anew
    assert overlap in ((0, 1) if sampler == "heun_karras" else (0,))
    assert times[: len(split[0].t)] == list(whole.t[: len(split[0].t)])
    assert times[len(split[0].t) :] == list(whole.t[len(whole.t) - len(split[1].t) :])


@pytest.mark.parametrize(
    ("part", "field"),
    [
        (SchedulePart(start=1.0), "start"),
        (SchedulePart(start=-0.1), "start"),
        (SchedulePart(start=float("nan")), "start"),
        (SchedulePart(end=0.0), "end"),
        (SchedulePart(end=1.1), "end"),
        (SchedulePart(end=float("nan")), "end"),
        (SchedulePart(0.5, 0.5), "end"),
        (SchedulePart(0.6, 0.5), "end"),
        (SchedulePart(0.5, 0.501), "end"),
    ],
)
def test_a_part_without_a_step_is_refused_by_name(part: SchedulePart, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        build_step_table(SDXL, "euler", STEPS, part=part)
    assert refused.value.fields["field"] == field


def test_steps_that_are_not_told_by_training_times_have_no_parts() -> None:
    playground = {"_class_name": "EDMEulerScheduler", "sigma_data": 0.5}
    with pytest.raises(InvalidRequest) as refused:
        build_step_table(playground, "edm_euler", STEPS, part=SchedulePart(end=0.5))
    assert refused.value.fields["field"] == "end"
