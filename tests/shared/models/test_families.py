"""What a model's architecture is, is found by its files; one that is not served is refused."""

import json
from pathlib import Path

import pytest

from shared.errors import Misconfigured
from shared.models.cards import read_card
from shared.models.catalogue import sort_controls
from shared.models.families.registry import FAMILIES, family_of
from shared.shipped import DEFAULT_MODEL


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_a_model_is_of_the_family_whose_pipeline_it_names() -> None:
    card = read_card(DEFAULT_MODEL)
    assert card.pipeline == type(family_of(DEFAULT_MODEL)).pipeline == "StableDiffusionXLPipeline"
    assert (card.size_multiple, card.default_width, card.embedded_guidance) == (8, 128, False)


def test_an_architecture_that_is_not_served_is_refused_with_those_that_are(tmp_path: Path) -> None:
    write(tmp_path / "model_index.json", {"_class_name": "SomePipeline"})
    served = ", ".join(family.pipeline for family in FAMILIES)
    with pytest.raises(Misconfigured, match=f"a SomePipeline; served are: {served}"):
        read_card(str(tmp_path))


def test_a_directory_without_a_model_says_which_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"not a diffusers directory: model_index\.json"):
        read_card(str(tmp_path))


def test_a_controlnet_of_another_architecture_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path / "config.json", {"_class_name": "FluxControlNetModel"})
    found, [unusable] = sort_controls([str(tmp_path)])
    assert not found
    assert "a FluxControlNetModel; served are: ControlNetModel" in unusable.reason
