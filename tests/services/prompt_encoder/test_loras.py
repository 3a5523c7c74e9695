"""LoRAs with weights for the text encoders count when the prompt is encoded."""

from pathlib import Path
from typing import Any

import torch

from shared.models.families.registry import family_of
from shared.models.families.sdxl.family import Sdxl
from shared.models.families.sdxl.text import SdxlTextEncoder
from shared.models.loras.read import read_adapter
from shared.models.lowrank.weights import Adapter
from shared.shipped import DEFAULT_MODEL
from tests.helpers.loras import write_lora

PROMPTS = ["a red circle on white", "two blue squares", "a star"]


def encoder() -> SdxlTextEncoder:
    return SdxlTextEncoder(DEFAULT_MODEL, "cpu", torch.float32)


def networks(one: SdxlTextEncoder) -> dict[str, Any]:
    return {clip.folder: clip.network for clip in one._clips}


@torch.no_grad()
def merge(one: SdxlTextEncoder, adapter: Adapter, scale: float) -> None:
    for part, network in networks(one).items():
        for name, low in adapter.parts[part].items():
            layers = dict(network.named_modules())
            layer = layers.get(name) or layers[f"text_model.{name}"]
            layer.weight += scale * low.up @ low.down


def test_each_prompt_is_encoded_with_its_own_adapters(tmp_path: Path) -> None:
    one, other = encoder(), encoder()
    for k, form in enumerate(("kohya", "peft")):
        path = write_lora(tmp_path / f"{form}.safetensors", networks(one), form, seed=k)  # type: ignore[arg-type]
        adapter = read_adapter(form, path, family_of(DEFAULT_MODEL))
        one.check(adapter)
        mixed = one(PROMPTS, [(), ((adapter, 0.5),), ((adapter, 1.0),)])
        merge(other, adapter, 0.5)
        plain, adapted = one(PROMPTS), other(PROMPTS)
        found, before, after = ([one.tensors for one in each] for each in (mixed, plain, adapted))
        torch.testing.assert_close(found[0]["embeds"], before[0]["embeds"], atol=1e-4, rtol=1e-4)
        for name in Sdxl.conditioning:
            torch.testing.assert_close(found[1][name], after[1][name], atol=1e-3, rtol=1e-3)
        assert (found[2]["embeds"] - before[2]["embeds"]).abs().max() > 0.1
        other = encoder()
