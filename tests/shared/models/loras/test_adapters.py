"""LoRA files are read in all their forms, and batches that mix them compute what each image alone
would."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from shared.errors import AdapterUnusable, InvalidRequest
from shared.messages import LoraChoice
from shared.models.loras.files import LoraFiles
from shared.models.loras.library import AdapterLibrary
from shared.models.loras.read import read_adapter
from shared.models.loras.sources.directory import LoraDirectory
from shared.models.lowrank.bank import AdaptedNetwork
from shared.models.lowrank.weights import Adapter, LowRank
from shared.residency.loader import Loader
from tests.conftest import run
from tests.helpers.loras import Form, write_lora
from tests.services.denoiser.models import family, make_unet

FORMS: tuple[Form, ...] = ("peft", "diffusers", "kohya")


class Net(nn.Module):
    """A layer of each kind that adapters are for, for images (N, 4, 6, 6)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.point = nn.Conv2d(8, 8, 1)
        self.tokens = nn.Linear(8, 5)
        self.vector = nn.Linear(5, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.point(self.conv(x)).flatten(2).transpose(1, 2)
        out: torch.Tensor = self.vector(self.tokens(x).mean(1))
        return out


def adapter(name: str, rank: int, layers: tuple[str, ...], seed: int) -> Adapter:
    torch.manual_seed(seed)
    net = Net()
    found = {}
    for layer in layers:
        weight = net.get_submodule(layer).weight
        assert isinstance(weight, torch.Tensor)
        kernel = weight.shape[2:]
        found[layer] = LowRank(
            torch.randn(rank, weight.shape[1], *kernel),
            torch.randn(weight.shape[0], rank, *[1] * len(kernel)),
        )
    return Adapter(name, {"unet": found})


ONE = adapter("one", 2, ("conv", "point", "tokens", "vector"), seed=1)
TWO = adapter("two", 3, ("conv", "tokens"), seed=2)


def merged(*uses: tuple[Adapter, float]) -> Net:
    """The network with its weights changed for good."""
    net = Net()
    with torch.no_grad():
        for one, scale in uses:
            for name, low in one.parts["unet"].items():
                weight = net.get_submodule(name).weight
                assert isinstance(weight, torch.Tensor)
                weight += scale * (low.up.flatten(1) @ low.down.flatten(1)).view_as(weight)
    return net


@torch.inference_mode()
def test_images_of_one_batch_with_different_adapters_are_as_each_would_be_alone() -> None:
    net = Net()
    adapted = AdaptedNetwork("unet", net)
    wanted = [[], [(ONE, 1.0)], [(TWO, -0.5)], [(ONE, 0.3), (TWO, 2.0)], [], [(ONE, 1.0)]]
    x = torch.randn(len(wanted), 4, 6, 6)
    plain = net(x)
    with adapted.using(adapted.bank(wanted)):
        mixed = net(x)
    for i, uses in enumerate(wanted):
        alone = merged(*uses)(x[i : i + 1])
        torch.testing.assert_close(mixed[i : i + 1], alone, atol=1e-4, rtol=1e-4)
    assert torch.equal(net(x), plain)
    assert not torch.allclose(mixed[3], plain[3], atol=1e-2)


@torch.inference_mode()
def test_a_batch_of_one_set_is_as_the_merged_network() -> None:
    net = Net()
    adapted = AdaptedNetwork("unet", net)
    uses = [(ONE, 0.7), (TWO, 1.0)]
    x = torch.randn(3, 4, 6, 6)
    with adapted.using(adapted.bank([uses] * 3)):
        torch.testing.assert_close(net(x), merged(*uses)(x), atol=1e-4, rtol=1e-4)


def test_no_adapters_make_no_bank() -> None:
    assert AdaptedNetwork("unet", Net()).bank([[], []]) is None


@pytest.mark.parametrize(("form", "alpha"), [*((form, None) for form in FORMS), ("kohya", 1.5)])
def test_every_form_of_file_is_read(tmp_path: Path, form: Form, alpha: float | None) -> None:
    unet = make_unet()
    path = write_lora(tmp_path / "style.safetensors", {"unet": unet}, form, alpha=alpha)
    found = read_adapter("style", path, family())
    again = read_adapter(
        "same", write_lora(tmp_path / "same.safetensors", {"unet": unet}, "peft"), family()
    )
    AdaptedNetwork("unet", unet).check(found)
    assert found.parts["unet"].keys() == again.parts["unet"].keys()
    for name, low in found.parts["unet"].items():
        other = again.parts["unet"][name]
        torch.testing.assert_close(low.down, other.down)
        torch.testing.assert_close(low.up, other.up * (0.5 if alpha else 1.0))  # alpha / rank


def _truncated(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _changed(path: Path, change: Any) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file({k: v.contiguous() for k, v in tensors.items()}, path)


def _one_missing(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[next(key for key in tensors if "lora_B" in key)]


def _wrong_rank(tensors: dict[str, torch.Tensor]) -> None:
    key = next(key for key in tensors if "lora_B" in key)
    tensors[key] = tensors[key][:, :1]


def _dora(tensors: dict[str, torch.Tensor]) -> None:
    tensors["unet.conv_in.lora_magnitude_vector.weight"] = torch.zeros(2)


def _foreign(tensors: dict[str, torch.Tensor]) -> None:
    tensors["bundle_emb.style.string_to_param"] = torch.zeros(2)


def _rank_0(tensors: dict[str, torch.Tensor]) -> None:
    for key, tensor in tensors.items():
        tensors[key] = tensor[:0] if "lora_A" in key else tensor[:, :0]


def _not_a_number(tensors: dict[str, torch.Tensor]) -> None:
    next(iter(tensors.values())).fill_(float("nan"))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_truncated, "cannot be read"),
        (lambda path: path.write_bytes(b"\x80\x04pickle"), "cannot be read"),
        (lambda path: _changed(path, _one_missing), "no up matrix"),
        (lambda path: _changed(path, _wrong_rank), "do not fit together"),
        (lambda path: _changed(path, _not_a_number), "not finite"),
        (lambda path: save_file({"weight": torch.zeros(2)}, path), "no low-rank weight"),
        (lambda path: save_file({}, path), "has no weights"),
        (lambda path: _changed(path, _dora), "no down and no up matrix"),
        (lambda path: _changed(path, _foreign), "bundle_emb"),
        (lambda path: _changed(path, _rank_0), "do not fit together"),
        (lambda path: path.unlink(), "no file"),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path: Path, spoil: Any, reason: str) -> None:
    unet = make_unet()
    path = write_lora(tmp_path / "bad.safetensors", {"unet": unet})
    spoil(path)
    with pytest.raises(AdapterUnusable, match=reason) as caught:
        read_adapter("bad", path, family())
    assert caught.value.fields["adapter"] == "bad"


def test_a_file_is_not_read_for_networks_that_it_says_nothing_about(tmp_path: Path) -> None:
    unet = make_unet()
    path = write_lora(tmp_path / "big.safetensors", {"unet": unet})
    assert set(read_adapter("big", path, family(), ("unet",)).parts) == {"unet"}
    header = int.from_bytes(path.read_bytes()[:8], "little") + 8
    with path.open("r+b") as file:  # whoever reads on finds numbers that are none
        file.seek(header)
        file.write(b"\xff" * (path.stat().st_size - header))
    assert read_adapter("big", path, family(), ("text_encoder",)).parts == {}
    with pytest.raises(AdapterUnusable, match="not finite"):
        read_adapter("big", path, family(), ("unet",))


def test_an_adapter_of_another_model_is_refused_by_the_layer() -> None:
    net = AdaptedNetwork("unet", Net())
    with pytest.raises(AdapterUnusable, match=r"no layer unet\.elsewhere"):
        net.check(Adapter("x", {"unet": {"elsewhere": ONE.parts["unet"]["conv"]}}))
    with pytest.raises(AdapterUnusable, match=r"unet\.vector is \(7, 5\) in this model"):
        net.check(Adapter("x", {"unet": {"vector": ONE.parts["unet"]["tokens"]}}))


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "", ".hidden", "a/b", "absent"])
def test_no_name_leads_off_the_shelf(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.safetensors").touch()
    (tmp_path / "shelf").mkdir()
    (tmp_path / "shelf" / "neon.safetensors").touch()
    lora_directory = LoraDirectory((str(tmp_path / "shelf"), str(tmp_path / "nowhere")))
    with pytest.raises(InvalidRequest, match="one of neon"):
        lora_directory.find(name)
    assert lora_directory.find("neon").name == "neon.safetensors"


def library(folder: Path, max_bytes: int) -> AdapterLibrary:
    unet = make_unet()
    network = AdaptedNetwork("unet", unet)
    return AdapterLibrary(
        LoraFiles(LoraDirectory((str(folder),))), family(), network.check, max_bytes, Loader()
    )


def choices(*names: str) -> list[LoraChoice]:
    return [LoraChoice(name=name) for name in names]


def test_who_wants_the_same_adapter_at_once_reads_it_once(tmp_path: Path) -> None:
    write_lora(tmp_path / "neon.safetensors", {"unet": make_unet()})

    async def scenario() -> None:
        lora_directory = library(tmp_path, 2**30)
        found = await asyncio.gather(*(lora_directory.uses(choices("neon")) for _ in range(5)))
        assert len({id(uses[0][0]) for uses in found}) == 1
        await lora_directory.uses(choices("neon"))
        statistics = lora_directory.statistics()
        assert (statistics.reads, statistics.hits, statistics.adapters) == (1, 1, 1)

    run(scenario())


def test_the_least_recently_used_adapters_leave(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_lora(tmp_path / f"{name}.safetensors", {"unet": make_unet()})

    async def scenario() -> None:
        size = (await library(tmp_path, 1).get(LoraChoice(name="a"))).nbytes
        lora_directory = library(tmp_path, 2 * size)
        for name in ("a", "b", "a", "c", "a", "b"):
            await lora_directory.get(LoraChoice(name=name))
        statistics = lora_directory.statistics()
        assert (statistics.reads, statistics.hits, statistics.evictions) == (4, 2, 2)
        assert statistics.bytes == 2 * size

    run(scenario())


def test_a_file_that_was_replaced_is_read_again_and_a_bad_one_harms_nobody(tmp_path: Path) -> None:
    path = write_lora(tmp_path / "neon.safetensors", {"unet": make_unet()}, rank=2)

    async def scenario() -> None:
        lora_directory = library(tmp_path, 2**30)
        old = await lora_directory.get(LoraChoice(name="neon"))
        path.write_bytes(b"not safetensors")
        with pytest.raises(AdapterUnusable):
            await lora_directory.get(LoraChoice(name="neon"))
        write_lora(path, {"unet": make_unet()}, rank=4)
        new = await lora_directory.get(LoraChoice(name="neon"))
        assert {old.nbytes * 2} == {new.nbytes}
        assert lora_directory.statistics().failures == 1

    run(scenario())
