import pytest
import torch

from services.denoiser.rows.row import Row
from services.denoiser.sampling.noise import Noise
from shared.errors import InvalidRequest
from tests.services.denoiser.models import SHAPE, conditioning, make_row


def test_the_first_latents_are_the_seeds_first_draw_times_the_samplers_deviation() -> None:
    row = make_row(seed=42)
    draw = torch.randn((1, *SHAPE), generator=torch.Generator("cpu").manual_seed(42))
    torch.testing.assert_close(row.latents, draw * row.table.init_scale, rtol=0.0, atol=0.0)


def test_noise_depends_on_seed_and_step_alone() -> None:
    through, jumping = Noise(3, SHAPE), Noise(3, SHAPE)
    through.initial()
    draws = [through.at(step) for step in range(6)]
    assert torch.equal(jumping.at(4), draws[4])
    assert torch.equal(jumping.at(4), draws[4]), "a step that is tried again draws the same"
    assert torch.equal(jumping.at(5), draws[5])
    assert not torch.equal(Noise(4, SHAPE).at(4), draws[4])
    with pytest.raises(ValueError, match="past"):
        jumping.at(2)


def test_guidance_without_an_unconditional_half_is_refused() -> None:
    row = make_row(guidance=1.0)
    assert row.forwards == 1
    with pytest.raises(InvalidRequest, match=r"guidance: 3\.0"):
        Row(
            job_id="j",
            node="n",
            index=0,
            seed=0,
            table=row.table,
            shape=SHAPE,
            cond=row.cond,
            guidance=3.0,
        )


def test_a_negative_prompt_of_another_length_is_refused() -> None:
    row = make_row()
    with pytest.raises(InvalidRequest, match="negative_prompt"):
        Row(
            job_id="j",
            node="n",
            index=0,
            seed=0,
            table=row.table,
            shape=SHAPE,
            cond=row.cond,
            uncond=conditioning("nothing", length=9),
            guidance=3.0,
        )


def test_a_checkpoint_holds_the_previous_prediction_only_if_the_next_step_needs_it() -> None:
    assert sorted(make_row(sampler="euler").checkpoint()) == ["latents"]
    row = make_row(sampler="dpmpp_2m", steps=20)
    assert sorted(row.checkpoint()) == ["latents"]
    row.step = 5
    assert sorted(row.checkpoint()) == ["latents", "x0_prev"]
    row.step = 19
    assert sorted(row.checkpoint()) == ["latents"]


def test_a_checkpoint_that_does_not_fit_is_refused() -> None:
    row = make_row(sampler="dpmpp_2m", steps=20)
    latents = torch.zeros(1, *SHAPE)
    with pytest.raises(InvalidRequest, match="checkpoint: None"):
        row.resume(3, {})
    with pytest.raises(InvalidRequest, match=r"allowed: latents of \(1, 4, 8, 8\)"):
        row.resume(3, {"latents": torch.zeros(1, 4, 8, 16)})
    with pytest.raises(InvalidRequest, match="step 0 to 19"):
        row.resume(20, {"latents": latents})
    with pytest.raises(InvalidRequest, match="x0_prev"):
        row.resume(3, {"latents": latents})
    assert row.resume(3, {"latents": latents, "x0_prev": latents}).step == 3
