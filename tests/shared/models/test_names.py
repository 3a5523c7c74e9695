"""Models by their names, aliases, hub ids and paths."""

from pathlib import Path

import pytest

from shared.config import Settings
from shared.errors import InvalidRequest, Misconfigured
from shared.jobs.validate import validate
from shared.models.catalogue import Catalogue
from shared.models.names import parse_aliases
from shared.shipped import MODELS
from tests.helpers import factories

SDXL = factories.card(source="/models/sdxl")
HUB = factories.card(name="xl-base", source="owner/xl-base")
CACHED = factories.card(
    name="0abc", source="/cache/hub/models--some-owner--some-model/snapshots/0abc"
)
SERVED = factories.catalogue(SDXL, HUB, CACHED).with_aliases(
    {"gpt-image-1": "pocket-sdxl", "owner/other": "owner/xl-base", "mine": "/models/sdxl"}
)


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("pocket-sdxl", "pocket-sdxl"),
        ("/models/sdxl", "pocket-sdxl"),
        ("/models/sdxl/", "pocket-sdxl"),
        ("/models/../models/sdxl", "pocket-sdxl"),
        ("gpt-image-1", "pocket-sdxl"),
        ("mine", "pocket-sdxl"),
        ("xl-base", "xl-base"),
        ("owner/xl-base", "xl-base"),
        ("owner/other", "xl-base"),
        ("0abc", "0abc"),
        ("some-owner/some-model", "0abc"),
    ],
)
def test_a_model_is_found_by_all_its_names(wanted: str, name: str) -> None:
    assert validate(factories.request(model=wanted), SERVED).model == name


@pytest.mark.parametrize(
    "wanted", ["", " ", "other", "owner/sdxl", "sdxl", "/models", "x" * 9000, "a\0b", "Pocket-SDXL"]
)
def test_what_is_no_name_of_a_model_is_refused_with_the_names(wanted: str) -> None:
    allowed = "allowed: one of pocket-sdxl, xl-base, 0abc, gpt-image-1, owner/other, mine"
    with pytest.raises(InvalidRequest, match=allowed):
        validate(factories.request(model=wanted), SERVED)


def test_a_path_is_found_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").symlink_to(MODELS["pocket-sdxl"])
    monkeypatch.chdir(tmp_path)
    served = Catalogue.of(Settings(models="./here", loras="", controls=""))
    for wanted in ("./here", "here", "here/", str(tmp_path / "here"), MODELS["pocket-sdxl"]):
        card = served.find(wanted)
        assert card is not None
        assert card.name == "pocket-sdxl"


def test_aliases_come_from_the_settings() -> None:
    settings = Settings(model_aliases=" dall-e-3 = pocket-sdxl, a/b=pocket-sdxl,", controls="")
    served = Catalogue.of(settings)
    assert served.aliases == {"dall-e-3": "pocket-sdxl", "a/b": "pocket-sdxl"}
    assert served.also_called("pocket-sdxl") == ("dall-e-3", "a/b", served.default.source)


@pytest.mark.parametrize("text", ["a", "=a", "a=", "a=b,a=c", "a=b,,c", "a\x07b=c"])
def test_an_alias_that_is_none_is_refused_by_the_variables_name(text: str) -> None:
    with pytest.raises(Misconfigured, match="DARKROOM_MODEL_ALIASES"):
        parse_aliases(text)


@pytest.mark.parametrize(
    ("alias", "model", "reason"),
    [
        ("a", "nothing", "nothing is not served"),
        ("xl-base", "pocket-sdxl", "xl-base is itself a model"),
    ],
)
def test_an_alias_of_no_model_or_of_another_ones_name_is_refused(
    alias: str, model: str, reason: str
) -> None:
    with pytest.raises(Misconfigured, match=f"{alias}={model} is not allowed, for {reason}"):
        SERVED.with_aliases({alias: model})
