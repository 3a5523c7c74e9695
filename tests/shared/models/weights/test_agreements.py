"""What agreed once on this host is not tried in full again; what differs in anything is."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from shared.models.contracts import traced as contract
from shared.models.contracts.network import Network
from shared.models.contracts.traced import KNOWN_TRIAL, TRIALS
from shared.models.families.sdxl.unet import SdxlUnet
from shared.models.families.unet.traced import TracedUnet, traced
from shared.models.weights import agreements, sharing
from shared.models.weights.agreements import identity_of, known, remember
from tests.services.denoiser.models import make_unet


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    before = list(sharing._caches)
    sharing.share_weights(tmp_path / "weights", 1 << 30)
    yield tmp_path / "weights"
    sharing._caches[:] = before


@pytest.fixture
def unet() -> SdxlUnet:
    torch.set_num_threads(1)
    return SdxlUnet(make_unet())


def tried(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Notes the trials that are made."""
    made: list[tuple[int, ...]] = []
    agrees = contract._agrees

    def noted(network: Any, found: Network, *trial: int) -> bool:
        made.append(trial)
        return agrees(network, found, *trial)

    monkeypatch.setattr(contract, "_agrees", noted)
    return made


def test_a_network_like_one_that_agreed_is_tried_once(
    directory: Path, unet: SdxlUnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tried(monkeypatch)
    assert isinstance(traced(unet), TracedUnet)
    assert made == list(TRIALS)
    made.clear()
    other = SdxlUnet(make_unet())
    with torch.no_grad():
        for weight in other.module.parameters():
            weight.mul_(1.5)
    assert isinstance(traced(other), TracedUnet)
    assert made == [KNOWN_TRIAL]


def test_a_graph_that_gives_other_answers_is_not_used_and_not_remembered(
    directory: Path, unet: SdxlUnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(contract, "_agrees", lambda network, found, *trial: trial != TRIALS[1])
        assert traced(unet) is unet
    assert not list(directory.glob("*.agrees"))
    made = tried(monkeypatch)
    assert isinstance(traced(unet), TracedUnet)
    assert made == list(TRIALS)


def test_one_that_agreed_before_is_not_used_when_it_does_not_now(
    directory: Path, unet: SdxlUnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(traced(unet), TracedUnet)
    monkeypatch.setattr(contract, "_agrees", lambda network, found, *trial: False)
    assert traced(unet) is unet


def test_without_a_directory_everything_is_tried(
    unet: SdxlUnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "_caches", [])
    made = tried(monkeypatch)
    for _ in range(2):
        traced(unet)
    assert made == [*TRIALS, *TRIALS]


def test_config_forms_of_weights_code_and_threads_make_another_network(unet: SdxlUnet) -> None:
    base = identity_of(unet.module, SdxlUnet)
    assert identity_of(SdxlUnet(make_unet()).module, SdxlUnet) == base
    found = {base, identity_of(unet.module, SdxlUnet, TracedUnet)}
    found.add(identity_of(make_unet().half(), SdxlUnet))
    unet.module.register_to_config(center_input_sample=True)
    found.add(identity_of(unet.module, SdxlUnet))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    found.add(identity_of(unet.module, SdxlUnet))
    torch.set_num_threads(threads)
    assert len(found) == 5
    unet.module.register_to_config(_name_or_path="elsewhere")
    assert identity_of(unet.module, SdxlUnet) in found


def test_so_many_are_remembered(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreements, "MOST", 2)
    for name in ("a", "b", "c"):
        remember(name)
    assert sum(map(known, ("a", "b", "c"))) == 2
    assert known("c")
