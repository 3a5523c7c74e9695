"""What a LoRA does not fit is said when a job is submitted, by the headers of files alone."""

import os
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from safetensors.torch import save_file

from shared.errors import AdapterUnusable, InvalidRequest
from shared.jobs.validate import validate
from shared.messages import LoraChoice
from shared.models.catalogue import Catalogue
from shared.models.families.registry import family_of
from shared.models.files.safetensors_header import read_header
from shared.models.loras.fits import check_fits, unfit
from shared.models.loras.layout import layout
from shared.models.loras.sources.directory import LoraDirectory
from shared.shipped import DEFAULT_LORAS, DEFAULT_MODEL
from tests.helpers import factories
from tests.helpers.loras import biased_of, shapes_of

FLUX = str(Path(DEFAULT_MODEL).parent / "pocket-flux")


def submit(folder: Path, model: str = DEFAULT_MODEL, **choice: Any) -> None:
    catalogue = Catalogue.load([model], [str(folder)])
    lora = LoraChoice(**choice or {"name": "style"})
    validate(factories.request(loras=(lora,)), catalogue)


def put(folder: Path, shapes: dict[str, tuple[int, ...]], **metadata: str) -> Path:
    path = folder / "style.safetensors"
    save_file({key: torch.zeros(shape) for key, shape in shapes.items()}, path, metadata)
    return path


@pytest.mark.parametrize("model", [DEFAULT_MODEL, FLUX])
def test_the_headers_of_a_model_tell_its_layers(model: str) -> None:
    family = family_of(model)
    for part in family.parts:
        with torch.device("meta"):
            if part == family.denoiser:
                kind = getattr(diffusers, family.config["_class_name"])
                network = kind.from_config(family.config)
            else:
                config = transformers.AutoConfig.from_pretrained(Path(model) / part)
                network = getattr(transformers, config.architectures[0])(config)
        wanted = {n.removeprefix("text_model."): s for n, s in shapes_of(network).items()}
        assert family.layers[part] == wanted, part
        biased = {name.removeprefix("text_model.") for name in biased_of(network)}
        assert family.biased[part] == biased, part


def test_what_ships_fits_what_ships() -> None:
    names = sorted(Path(DEFAULT_LORAS).glob("*.safetensors"))
    assert names
    for path in names:
        submit(path.parent, name=path.stem)
        assert layout("", read_header(path), family_of(DEFAULT_MODEL)).left == {}


ATTENTION = "down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
NOTE = "ss_base_model_version"
BLOCK = "double_blocks_0_img_attn_proj"


@pytest.mark.parametrize(
    ("model", "shapes", "metadata", "found"),
    [
        (FLUX, {ATTENTION: (320, 768)}, {}, "Stable Diffusion 1"),
        (FLUX, {ATTENTION: (640, 2048)}, {}, "SDXL"),
        (DEFAULT_MODEL, {ATTENTION: (320, 768)}, {}, "Stable Diffusion 1"),
        (DEFAULT_MODEL, {BLOCK: (3072, 3072)}, {}, "FLUX"),
        (DEFAULT_MODEL, {"blocks_0_to_q": (64, 64)}, {NOTE: "qwen-image"}, "Qwen-Image"),
        (FLUX, {"joint_blocks_0_x_block_attn_qkv": (64, 64)}, {}, "Stable Diffusion 3"),
        (FLUX, {"blocks_0_self_attn_q": (64, 64)}, {}, "Wan"),
    ],
)  # fmt: skip
def test_one_for_another_architecture_is_refused_saying_what_it_is(
    tmp_path: Path,
    model: str,
    shapes: dict[str, tuple[int, int]],
    metadata: dict[str, str],
    found: str,
) -> None:
    tensors: dict[str, tuple[int, ...]] = {}
    for layer, (out, into) in shapes.items():
        tensors |= {f"lora_unet_{layer}.lora_down.weight": (4, into)}
        tensors |= {f"lora_unet_{layer}.lora_up.weight": (out, 4)}
    put(tmp_path, tensors, **metadata)
    for partial in (False, True):
        with pytest.raises(AdapterUnusable, match=f"a LoRA for {found}, and this model is"):
            submit(tmp_path, model, name="style", partial=partial)


def test_one_for_another_architecture_is_not_used_in_part(tmp_path: Path) -> None:
    """CLIP is in several, and some layers of SD 1 have the sizes of SDXL's."""
    clip = "lora_te1_text_model_encoder_layers_0_self_attn_q_proj"
    _, into = family_of(DEFAULT_MODEL).layers["text_encoder"]["encoder.layers.0.self_attn.q_proj"]
    tensors: dict[str, tuple[int, ...]] = {
        f"{clip}.lora_down.weight": (2, into),
        f"{clip}.lora_up.weight": (into, 2),
    }
    put(tmp_path, tensors)
    submit(tmp_path)
    tensors |= {f"lora_unet_{ATTENTION}.lora_down.weight": (2, 768)}
    tensors |= {f"lora_unet_{ATTENTION}.lora_up.weight": (320, 2)}
    put(tmp_path, tensors)
    with pytest.raises(AdapterUnusable, match="it is a LoRA for Stable Diffusion 1"):
        submit(tmp_path, name="style", partial=True)


def test_those_that_fit_no_model_are_listed_with_their_reason(tmp_path: Path) -> None:
    good = next(Path(DEFAULT_LORAS).glob("*.safetensors")).read_bytes()
    (tmp_path / "good [x].safetensors").write_bytes(good)
    (tmp_path / "torn.safetensors").write_bytes(good[:100])
    put(tmp_path, {f"{BLOCK}.lora_A.weight": (2, 8), f"{BLOCK}.lora_B.weight": (8, 2)})
    lora_directory = LoraDirectory((str(tmp_path),))
    found = unfit(lora_directory, [DEFAULT_MODEL])
    assert found.keys() == {"style", "torn"}
    assert found["style"] == "it is a LoRA for FLUX, and this model is SDXL"
    assert found["torn"].startswith("torn.safetensors cannot be read")
    assert "good [x]" not in unfit(lora_directory, [FLUX, DEFAULT_MODEL])


def test_a_file_is_looked_at_again_once_it_is_another_one(tmp_path: Path) -> None:
    path = tmp_path / "style.safetensors"
    path.write_bytes(b"not safetensors")
    for choice in ({"name": "style"}, {"path": "style.safetensors"}):
        with pytest.raises(AdapterUnusable, match=r"style\.safetensors cannot be read"):
            submit(tmp_path, **choice)
    put(tmp_path, {"unet.conv_in.lora_A.weight": (1, 4, 3, 3)})
    with pytest.raises(AdapterUnusable, match="no up matrix"):
        submit(tmp_path)
    path.write_bytes(next(Path(DEFAULT_LORAS).glob("*.safetensors")).read_bytes())
    submit(tmp_path)


def test_nothing_is_said_of_a_model_whose_files_are_elsewhere(tmp_path: Path) -> None:
    put(tmp_path, {"unet.conv_in.lora_A.weight": (1, 4, 3, 3)})
    model = tmp_path / "model"
    for path in Path(DEFAULT_MODEL).rglob("*.json"):
        (model / path.relative_to(DEFAULT_MODEL)).parent.mkdir(parents=True, exist_ok=True)
        (model / path.relative_to(DEFAULT_MODEL)).write_bytes(path.read_bytes())
    check_fits(LoraChoice(name="style"), LoraDirectory((str(tmp_path),)), str(model))


NAMES = [
    "ok_name",
    "v1.5",
    "Detail Tweaker XL",
    "[style] 画风 v1.0",
    "add-detail-xl (v2)",
    "a+b & c, d",
    "naïve",
    "-dash",
    "стиль",
    "نمط\u200cفارسی",
    "全角\u3000空白",
    "#1 👩\u200d🎨",
    "ratio 16:9",
    "100%",
    "x" * 140,
]


def test_files_are_listed_and_found_whatever_their_names(tmp_path: Path) -> None:
    data = next(Path(DEFAULT_LORAS).glob("*.safetensors")).read_bytes()
    for name in NAMES:
        (tmp_path / f"{name}.safetensors").write_bytes(data)
    (tmp_path / "capitals.SafeTensors").write_bytes(data)
    for hidden in (".hidden.safetensors", "two\nlines.safetensors", "notes.txt"):
        (tmp_path / hidden).write_bytes(data)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.safetensors")).write_bytes(data)
    lora_directory = Catalogue.load([DEFAULT_MODEL], [str(tmp_path)]).lora_directory
    assert lora_directory.names() == sorted([*NAMES, "capitals"])
    for name in lora_directory.names():
        submit(tmp_path, name=name)
    for name in NAMES:
        submit(tmp_path, path=f"{name}.safetensors")
    assert lora_directory.find("nai\u0308ve") == lora_directory.find("naïve")
    for name in (".hidden", "two\nlines", "\udcff", "notes", "y" * 5000, "a\0b"):
        with pytest.raises(InvalidRequest, match="one of"):
            lora_directory.find(name)


def test_a_link_is_what_it_leads_to_by_name_by_path_and_in_the_list(tmp_path: Path) -> None:
    data = next(Path(DEFAULT_LORAS).glob("*.safetensors")).read_bytes()
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "blob").write_bytes(data)
    (outside / "other.safetensors").write_bytes(data)
    (inside / "linked.safetensors").symlink_to(outside / "blob")
    (inside / "door").symlink_to(outside)
    (inside / "circle.safetensors").symlink_to(inside / "circle.safetensors")
    (inside / "gone.safetensors").symlink_to(outside / "gone")
    assert Catalogue.load([DEFAULT_MODEL], [str(inside)]).lora_directory.names() == ["linked"]
    submit(inside, name="linked")
    submit(inside, path="linked.safetensors")
    submit(inside, path="door/other.safetensors")
    (tmp_path / "entry").symlink_to(inside)
    submit(tmp_path / "entry", path=str(inside / "linked.safetensors"))
    submit(tmp_path / "entry", path=str(tmp_path / "entry" / "linked.safetensors"))
    refused = ("../outside/other.safetensors", "door/../../outside/other.safetensors")
    for path in (
        *refused,
        "circle.safetensors",
        "gone.safetensors",
        str(outside / "other.safetensors"),
    ):
        with pytest.raises(InvalidRequest, match="below the server's LoRA directories"):
            submit(inside, path=path)
