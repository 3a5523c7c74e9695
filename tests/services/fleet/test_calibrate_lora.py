"""How many steps may be taken without a LoRA: measured on the model, noted beside the LoRA."""

import json
from pathlib import Path

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from services.denoiser.loras.calibrate import calibrate, cosines_by_step, late_steps
from shared.messages import LoraChoice
from shared.models.cards import read_card
from shared.models.loras.files import LoraFiles
from shared.models.loras.library import AdapterLibrary
from shared.models.loras.read import read_adapter
from shared.models.loras.sources.directory import Calibration, LoraDirectory, calibration
from shared.residency.loader import Loader
from shared.shipped import DEFAULT_LORAS, DEFAULT_MODEL
from tests.conftest import run
from tests.helpers.loras import write_lora
from tests.services.denoiser.models import family, make_row, make_unet, network

COSINES = st.lists(st.floats(-1.0, 1.0), max_size=12)


def test_the_most_sensitive_prompt_counts() -> None:
    assert late_steps([[1.0, 0.995, 0.98, 1.0], [1.0, 1.0, 1.0, 0.9]]) == 2
    assert late_steps([[0.9], [1.0]]) == 0
    assert late_steps([[1.0, 1.0]]) == 2
    assert late_steps([]) == 0


@given(st.lists(COSINES, min_size=1, max_size=5))
def test_no_latents_have_diverged_within_the_bound(cosines: list[list[float]]) -> None:
    late = late_steps(cosines)
    assert all(c >= 0.99 for each in cosines for c in each[:late])
    assert any(len(each) == late or each[late] < 0.99 for each in cosines)


def test_the_stronger_a_lora_the_sooner_latents_diverge(tmp_path: Path) -> None:
    unet = network()
    path = write_lora(tmp_path / "a.safetensors", {"unet": make_unet()})
    adapter = read_adapter("a", path, family())
    found = {}
    for scale in (0.0, 0.3, 3.0):
        plain, adapted = make_row(steps=8), make_row(steps=8, adapters=((adapter, scale),))
        found[scale] = cosines_by_step(unet, plain, adapted)
        assert len(found[scale]) == 8
    assert min(found[0.0]) == pytest.approx(1.0, abs=1e-5)
    assert found[0.0][-1] > found[0.3][-1] > found[3.0][-1]


def test_a_lora_of_the_shipped_model_is_calibrated() -> None:
    name = next(iter(LoraDirectory((DEFAULT_LORAS,)).names()))
    told: list[int] = []
    found = calibrate(
        read_card(DEFAULT_MODEL),
        LoraDirectory((DEFAULT_LORAS,)),
        name,
        ["a red circle"],
        told.append,
    )
    assert told == [1]
    assert 0 < found.late_steps < found.steps == 25


def test_a_row_waits_no_later_than_its_loras_were_calibrated_for(tmp_path: Path) -> None:
    for name, late in (("a", 6), ("b", 3), ("c", None), ("d", "torn")):
        write_lora(tmp_path / f"{name}.safetensors", {"unet": make_unet()})
        if isinstance(late, int):
            noted = {"late_steps": late, "steps": 24, "cosine": 0.99, "prompts": 1}
            (tmp_path / f"{name}.json").write_text(json.dumps(noted))
        elif late:
            (tmp_path / f"{name}.json").write_text(late)
    lora_directory = LoraDirectory((str(tmp_path),))
    library = AdapterLibrary(LoraFiles(lora_directory), family(), lambda adapter: None, 1, Loader())

    def bound(names: str, steps: int, asked: int) -> int:
        choices = [LoraChoice(name=name) for name in names]
        return run(library.late_steps(choices, steps, asked))

    assert calibration(lora_directory.find("a")) == Calibration(
        late_steps=6, steps=24, cosine=0.99, prompts=1
    )
    assert bound("a", 24, 100) == 6
    assert bound("a", 12, 100) == 3
    assert bound("ab", 24, 100) == 3
    assert bound("a", 24, 2) == 2
    assert bound("c", 24, 5) == 5
    assert bound("c", 4, 5) == 3
    assert bound("d", 24, 5) == 5
    assert bound("a", 24, 0) == bound("", 24, 5) == 0


def test_calibration_finds_an_adapter_that_does_nothing_harmless(tmp_path: Path) -> None:
    source = Path(DEFAULT_LORAS) / "stripes.safetensors"
    zeros = {name: torch.zeros_like(tensor) for name, tensor in load_file(source).items()}
    save_file(zeros, tmp_path / "nothing.safetensors")
    card = msgspec.structs.replace(read_card(DEFAULT_MODEL), default_steps=8)
    found = calibrate(card, LoraDirectory((str(tmp_path),)), "nothing", ["a star"])
    assert found.late_steps == found.steps == 8
