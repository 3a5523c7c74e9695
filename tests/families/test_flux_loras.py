"""LoRAs of FLUX: the files that people have, in batches that mix them, as diffusers paints them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from shared.errors import AdapterUnusable
from shared.models.loras.read import read_adapter
from shared.models.lowrank.weights import Adapter
from tests.helpers.flux import Atelier, Wish, apart, make_flux
from tests.helpers.loras import write_lora

BLOCKS = ("attn.to_q", "attn.add_k_proj", "ff.net.0.proj", "norm1.linear", "proj_mlp", "proj_out")


@pytest.fixture(scope="module")
def atelier(tmp_path_factory: pytest.TempPathFactory) -> Atelier:
    return Atelier(make_flux(tmp_path_factory.mktemp("flux") / "toy"))


def kohya(path: Path, atelier: Atelier) -> Path:
    """The image's half of the first block, in the names of kohya's scripts, with an alpha."""
    drawn = torch.Generator().manual_seed(5)
    width = atelier.pipeline.transformer.inner_dim
    tensors = {}
    for layer, out, into in (("attn_qkv", 3, 1), ("attn_proj", 1, 1), ("mlp_2", 1, 4)):
        key = f"lora_unet_double_blocks_0_img_{layer}"
        tensors[f"{key}.lora_down.weight"] = torch.randn(2, into * width, generator=drawn) * 0.1
        tensors[f"{key}.lora_up.weight"] = torch.randn(out * width, 2, generator=drawn)
        tensors[f"{key}.alpha"] = torch.tensor(1.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path


@pytest.fixture(scope="module")
def files(atelier: Atelier, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, pipeline = tmp_path_factory.mktemp("loras"), atelier.pipeline
    networks = {"transformer": pipeline.transformer}
    both = networks | {"text_encoder": pipeline.text_encoder}
    return {
        "blocks": write_lora(folder / "blocks.safetensors", networks, seed=1, endings=BLOCKS),
        "words": write_lora(folder / "words.safetensors", both, seed=2),
        "kohya": kohya(folder / "kohya.safetensors", atelier),
    }


def read(atelier: Atelier, files: dict[str, Path], name: str) -> Adapter:
    adapter = read_adapter(name, files[name], atelier.family)
    atelier.network.check(adapter)
    atelier.encoder.check(adapter)
    return adapter


WISHES: tuple[tuple[Wish, dict[str, float]], ...] = (
    (Wish("a red cube", seed=1, guidance=3.0), {"blocks": 0.8}),
    (Wish("a blue ball", seed=2, steps=5), {"words": 1.0, "kohya": 0.5}),
    (Wish("a tree", seed=3), {}),
    (Wish("a house", seed=4, guidance=2.0), {"kohya": 1.0}),
)


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning")
def test_rows_with_different_loras_share_steps_and_are_as_diffusers_paints_them(
    atelier: Atelier, files: dict[str, Path]
) -> None:
    adapters = {name: read(atelier, files, name) for name in files}
    rows = [
        atelier.row(wish, tuple((adapters[name], scale) for name, scale in wanted.items()))
        for wish, wanted in WISHES
    ]
    pictures = atelier.paint(rows)
    plain = atelier.paint([atelier.row(wish) for wish, _ in WISHES])
    for name, path in files.items():
        atelier.pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name=name)
    for (wish, wanted), picture, without in zip(WISHES, pictures, plain, strict=True):
        if wanted:
            atelier.pipeline.set_adapters(list(wanted), list(wanted.values()))
        else:
            atelier.pipeline.disable_lora()
        assert apart(picture, atelier.expected(wish)) <= 1, wish
        assert (apart(picture, without) > 2) == bool(wanted), wish
        atelier.pipeline.enable_lora()


def test_a_text_encoder_reads_its_own_share_only(atelier: Atelier, files: dict[str, Path]) -> None:
    found = read_adapter("words", files["words"], atelier.family, atelier.family.text_encoders)
    assert set(found.parts) == {"text_encoder"}


def test_t5_counts_as_if_it_had_the_lora_in_its_weights(atelier: Atelier, tmp_path: Path) -> None:
    networks = {"text_encoder_2": atelier.pipeline.text_encoder_2}
    path = write_lora(tmp_path / "t5.safetensors", networks, endings=(".q", ".wo"))
    adapter = read_adapter("t5", path, atelier.family)
    prompts = ["a red cube", "a blue ball"]
    mixed = atelier.encoder(prompts, [(), ((adapter, 0.7),)])
    plain = atelier.encoder(prompts)
    other: Any = atelier.family.text_encoder("cpu", torch.float32)
    other._adapted_t5.merge([(adapter, 0.7)])
    found, before, after = (
        [one.tensors["embeds"] for one in each] for each in (mixed, plain, other(prompts))
    )
    torch.testing.assert_close(found[0], before[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[1], after[1], atol=1e-4, rtol=1e-4)
    assert (after[1] - before[1]).abs().max() > 0.01


def test_a_lora_of_another_architecture_is_refused_by_name(
    atelier: Atelier, files: dict[str, Path], tmp_path: Path
) -> None:
    tensors = {
        f"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.lora_{matrix}.weight": (
            torch.zeros(size)
        )
        for matrix, size in (("A", (2, 2048)), ("B", (640, 2)))
    }
    save_file(tensors, tmp_path / "foreign.safetensors")
    with pytest.raises(AdapterUnusable, match="it is a LoRA for SDXL, and this model is FLUX"):
        read_adapter("foreign", tmp_path / "foreign.safetensors", atelier.family)
