"""Which model `darkroom render` means, with a fleet and without one."""

from pathlib import Path

import pytest

from services.fleet.cli.render import _own_models, _with_whole_path
from shared.shipped import DEFAULT_MODEL, MODELS
from tests.helpers.factories import request


def test_a_directory_is_named_to_a_running_fleet_as_the_fleet_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").symlink_to(Path(DEFAULT_MODEL).parent)
    monkeypatch.chdir(tmp_path)
    whole = _with_whole_path(request(model="./models/pocket-sdxl"))
    assert whole.model == MODELS["pocket-sdxl"]


@pytest.mark.parametrize("model", [None, "pocket-sdxl", "owner/name", "./nowhere", "gpt-image-1"])
def test_what_is_no_directory_here_is_left_to_the_fleet(model: str | None) -> None:
    wanted = request(model=model)
    assert _with_whole_path(wanted) == wanted


def test_a_fleet_of_ones_own_serves_what_is_named_or_what_an_alias_stands_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DARKROOM_MODELS", raising=False)
    assert _own_models(request(model="pocket-flux")) == ((MODELS["pocket-flux"],), request())
    assert _own_models(request(model="owner/name")) == (("owner/name",), request())
    monkeypatch.setenv("DARKROOM_MODEL_ALIASES", "owner/name=pocket-sdxl")
    aliased = request(model="owner/name")
    assert _own_models(aliased) == ((DEFAULT_MODEL,), aliased)
