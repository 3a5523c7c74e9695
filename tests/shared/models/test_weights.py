"""Weights load in whatever precision they are there, and others are refused by name."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from services.vae.autoencoder import Autoencoder
from shared.errors import Misconfigured
from shared.models.cards import read_card
from shared.models.families.flux.transformer import FluxTransformer
from shared.models.families.registry import family_of
from shared.models.families.sdxl.unet import SdxlControlNet, SdxlUnet
from shared.models.files import weights
from shared.models.files.weights import variant_of, weight_bytes
from shared.shipped import DEFAULT_CONTROLS, MODELS
from tests.helpers.models import copied
from tests.services.denoiser.models import make_unet


def halved(model: str, variant: str = "fp16") -> None:
    """Its weights as halves, under the name of the variant."""
    for path in sorted(Path(model).rglob("*.safetensors")):
        tensors = {
            name: value.half() if value.is_floating_point() else value
            for name, value in load_file(path).items()
        }
        save_file(tensors, path.with_suffix(f".{variant}.safetensors"), {"format": "pt"})
        path.unlink()


@pytest.mark.parametrize("source", MODELS.values(), ids=MODELS)
def test_a_model_whose_weights_are_halves_alone_loads(tmp_path: Path, source: str) -> None:
    model = copied(tmp_path / "m", source=source, weights=True)
    halved(model)
    read_card(model)
    family = family_of(model)
    assert variant_of(model, family.denoiser) == "fp16"
    [encoded] = family.text_encoder("cpu", torch.float32)(["a circle"])
    assert encoded.tensors["embeds"].isfinite().all()
    Autoencoder(model, "cpu", torch.float32).ask(8, 8)
    kind = SdxlUnet if family.denoiser == "unet" else FluxTransformer
    plain, half = kind.load(source).module, kind.load(model).module
    for one, other in zip(plain.parameters(), half.parameters(), strict=True):
        assert other.dtype is torch.float32
        assert torch.equal(one.half().float(), other)


def test_a_controlnet_whose_weights_are_halves_alone_loads(tmp_path: Path) -> None:
    control = copied(tmp_path / "c", source=f"{DEFAULT_CONTROLS}/edges", weights=True)
    halved(control)
    assert SdxlControlNet.load(control, torch.float32, "cpu").dtype is torch.float32


@pytest.mark.parametrize(
    ("names", "variant"),
    [
        (["model.safetensors", "model.fp16.safetensors"], None),
        (["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], None),
        (
            ["model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors"],
            "fp16",
        ),
        (["model.bf16.safetensors", "model.non_ema.safetensors"], "bf16"),
        (["model.fp32.safetensors", "model.fp16.safetensors"], "fp16"),
        ([], None),
    ],
)
def test_plain_weights_go_before_halves(
    tmp_path: Path, names: list[str], variant: str | None
) -> None:
    for name in names:
        (tmp_path / name).write_text("1234")
    assert variant_of(str(tmp_path)) == variant
    own = [name for name in names if variant is None or variant in name]
    counted = [name for name in own if variant or "fp16" not in name]
    assert weight_bytes(tmp_path) == 4 * len(counted)


def test_weights_of_another_kind_are_refused_by_name(tmp_path: Path) -> None:
    model = copied(tmp_path / "m")
    unet = tmp_path / "m" / "unet" / "diffusion_pytorch_model.safetensors"
    unet.rename(unet.with_suffix(".non_ema.safetensors"))
    with pytest.raises(Misconfigured, match="unet/ are non_ema; read are plain ones and fp16"):
        read_card(model)


def _text(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1")


def _shortened(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def _quantized(path: Path) -> None:
    tensors = load_file(path)
    save_file({key: value.to(torch.int8) for key, value in tensors.items()}, path)


def _in_shards(path: Path) -> None:
    name = "diffusion_pytorch_model-00001-of-00002.safetensors"
    path.rename(path.with_name(name))
    files = {"a": name, "b": name.replace("00001", "00002")}
    index = path.with_name("diffusion_pytorch_model.safetensors.index.json")
    index.write_text(json.dumps({"weight_map": files}))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_text, "cannot be read: it is not a safetensors file"),
        (lambda path: path.write_bytes(b""), "has no weights"),
        (_shortened, "cannot be read: it has .* bytes, and its header tells of"),
        (_quantized, "is I8; read are weights of BF16, F16"),
        (_in_shards, "-00002-of-00002.safetensors of .* is not there"),
    ],
)
def test_files_that_are_not_whole_are_named_before_anything_is_loaded(
    tmp_path: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    model = copied(tmp_path / "m")
    path = tmp_path / "m" / "vae" / "diffusion_pytorch_model.safetensors"
    save_file({"a": torch.ones(8)}, path)
    read_card(model)
    spoil(path)
    with pytest.raises(Misconfigured, match=reason):
        read_card(model)


def changed(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    [path] = folder.glob("*.safetensors")
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


def test_weights_that_a_file_lacks_are_not_drawn_at_random(tmp_path: Path) -> None:
    make_unet().save_pretrained(tmp_path / "unet")
    changed(tmp_path / "unet", lambda tensors: tensors.pop("conv_out.bias"))
    with pytest.raises(Misconfigured, match=r"the weights of unet lack conv_out\.bias"):
        SdxlUnet.load(str(tmp_path))


def test_weights_that_a_config_has_no_place_for_are_not_left_out(tmp_path: Path) -> None:
    make_unet(time_cond_proj_dim=4).save_pretrained(tmp_path / "unet")
    SdxlUnet.load(str(tmp_path))
    config = tmp_path / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"time_cond_proj_dim": None}))
    with pytest.raises(Misconfigured, match=r"unet has no place for its weights .*cond_proj"):
        SdxlUnet.load(str(tmp_path))


def test_text_encoders_are_whole_and_may_come_with_a_vision_tower(tmp_path: Path) -> None:
    model = copied(tmp_path / "m", weights=True)
    folder = tmp_path / "m" / "text_encoder"
    changed(folder, lambda tensors: tensors.update({"visual_projection.weight": torch.ones(2, 2)}))
    family_of(model).text_encoder("cpu", torch.float32)
    changed(folder, lambda tensors: tensors.pop(max(tensors, key=lambda key: "fc1.bias" in key)))
    with pytest.raises(Misconfigured, match=r"the weights of text_encoder lack .*fc1\.bias"):
        family_of(model).text_encoder("cpu", torch.float32)


def test_a_copy_of_the_hub_is_looked_at_before_the_hub(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def listed(source: str) -> tuple[str, ...]:
        asked.append(source)
        return ("unet/model.fp16.safetensors", "README.md")

    monkeypatch.setattr(weights, "_listed", listed)
    monkeypatch.setattr(weights, "_copied", lambda source: ("vae/model.bf16.safetensors",))
    assert variant_of("some/model", "vae") == "bf16"
    assert not asked
    assert variant_of("some/model", "unet") == "fp16"
    assert variant_of("some/model", "text_encoder") is None
    assert set(asked) == {"some/model"}
