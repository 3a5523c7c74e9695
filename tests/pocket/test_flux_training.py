"""pocket-flux's recipe: what it trains is FLUX as diffusers computes it, and comes out loadable."""

from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from torch import Tensor
from transformers import T5TokenizerFast

from pocket.captions import vocabulary
from pocket.paint import held_out_accuracy, load, paint
from pocket.scenes import held_out_scenes
from pocket.train.common.run import Run
from pocket.train.flux import text as flux_text
from pocket.train.flux import transformer
from pocket.train.flux.forward import FluxForward, image_ids
from pocket.train.flux.t5_tokenizer import MAX_SEQUENCE_LENGTH, write_t5_tokenizer
from pocket.train.flux.text import WIDTH, build_flux_text
from pocket.train.flux.transformer import build_flux, flow_loss
from pocket.train.sdxl import text
from pocket.train.sdxl.pool import Batch


@pytest.fixture(scope="module")
def t5_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> T5TokenizerFast:
    return write_t5_tokenizer(tmp_path_factory.mktemp("tokenizer_2"))


def a_transformer() -> FluxTransformer2DModel:
    """Random in every parameter: an untrained one is the zero function."""
    torch.manual_seed(0)
    model = build_flux()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.05)
    return model


def inputs(rows: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Packed latents, times, hidden states, pooled."""
    torch.manual_seed(1)
    hidden = torch.randn(rows, MAX_SEQUENCE_LENGTH, WIDTH)
    return torch.randn(rows, 64, 16), torch.rand(rows), hidden, torch.randn(rows, WIDTH)


def as_diffusers(
    model: FluxTransformer2DModel, x: Tensor, t: Tensor, h: Tensor, p: Tensor
) -> Tensor:
    velocity: Tensor = model(
        hidden_states=x,
        timestep=t,
        encoder_hidden_states=h,
        pooled_projections=p,
        img_ids=image_ids(8),
        txt_ids=torch.zeros(MAX_SEQUENCE_LENGTH, 3),
    ).sample
    return velocity


def test_the_forward_for_training_is_diffusers_own_up_to_bfloat16_and_so_are_its_gradients() -> (
    None
):
    model, rows = a_transformer(), inputs()
    gradients = []
    velocities = [FluxForward(model, MAX_SEQUENCE_LENGTH, 8)(*rows), as_diffusers(model, *rows)]
    for velocity in velocities:
        model.zero_grad()
        (velocity * rows[0]).sum().backward()  # type: ignore[no-untyped-call]
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters()})
    assert (velocities[0] - velocities[1]).norm() < 0.02 * velocities[1].norm()
    for name, exact in gradients[1].items():
        assert (gradients[0][name] - exact).norm() < 0.1 * exact.norm(), name


def test_positions_are_those_of_flux_pipeline() -> None:
    assert torch.equal(
        image_ids(8), FluxPipeline._prepare_latent_image_ids(1, 8, 8, "cpu", torch.float32)
    )


def test_an_untrained_transformer_says_that_nothing_moves() -> None:
    assert torch.equal(as_diffusers(build_flux(), *inputs()), torch.zeros(3, 64, 16))


def test_the_loss_is_least_for_the_velocity_from_picture_to_noise() -> None:
    latents = torch.randn(2, 4, 16, 16)
    batch = Batch(latents, torch.zeros(2, MAX_SEQUENCE_LENGTH, WIDTH), torch.zeros(2, WIDTH))
    packed = FluxPipeline._pack_latents(latents, *latents.shape)

    def knows_the_picture(x: Tensor, t: Tensor, hidden: Tensor, pooled: Tensor) -> Tensor:
        velocity: Tensor = (x - packed) / t[:, None, None]  # x is (1 - t) x0 + t e
        return velocity

    assert flow_loss(knows_the_picture, batch) < 1e-6


def test_each_word_of_the_grammar_is_one_t5_token_with_and_without_a_capital(
    t5_tokenizer: T5TokenizerFast,
) -> None:
    for word in vocabulary():
        assert len(t5_tokenizer(f"a {word}").input_ids) - len(t5_tokenizer("a").input_ids) in (1, 2)
        if word.isalpha():
            assert len(t5_tokenizer(word).input_ids) == 2  # the word, end
            assert len(t5_tokenizer(word.capitalize()).input_ids) == 2
    assert t5_tokenizer.model_max_length == MAX_SEQUENCE_LENGTH


def test_other_words_go_in_by_letters(t5_tokenizer: T5TokenizerFast) -> None:
    assert t5_tokenizer.tokenize("a zebra") == ["▁a", "▁", "z", "e", "b", "r", "a"]


def test_capitals_mean_what_small_letters_mean() -> None:
    text = build_flux_text()
    flux_text._learn_capitals(text)
    hidden, pooled = text(["A Red star", "a red star"])
    assert tuple(hidden.shape) == (2, MAX_SEQUENCE_LENGTH, WIDTH)
    assert tuple(pooled.shape) == (2, WIDTH)
    assert torch.equal(hidden[0], hidden[1])
    assert torch.equal(pooled[0], pooled[1])


def test_a_run_resumes_hears_its_length_from_a_file_and_comes_out_as_a_flux_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformer, "BATCH", 2)
    monkeypatch.setattr(transformer, "POOL_START", 2)
    monkeypatch.setattr(transformer, "SAMPLING_STEPS", 2)
    monkeypatch.setattr(flux_text, "STEPS", 1)
    monkeypatch.setattr(text, "BATCH", 4)
    monkeypatch.setattr(text, "held_out_scenes", lambda count: held_out_scenes(4))
    monkeypatch.setattr(transformer, "held_out_accuracy", lambda pipeline, **how: {})
    run = Run(tmp_path, 0, torch.device("cpu"))
    for steps in (1, 2):
        (tmp_path / transformer.LENGTH_FILE).write_text(str(steps))
        transformer._job(run)
        assert (run.load("flux") or {})["step"] == steps
    pipeline = load(tmp_path / "pocket-flux")
    assert isinstance(pipeline, FluxPipeline)
    assert {part.dtype for part in pipeline.components.values() if hasattr(part, "dtype")} == {
        torch.float32
    }
    assert set(held_out_accuracy(pipeline, steps=2, guidance=1.0, count=1)) >= {
        "accuracy_all",
        "accuracy_shape",
    }
    plain, guided = (
        paint(pipeline, ["a red star"], steps=1, guidance=guidance)[0] for guidance in (1.0, 3.0)
    )
    assert plain.shape == guided.shape == (128, 128, 3)
