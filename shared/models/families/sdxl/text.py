"""SDXL's two text encoders: prompts in, embeddings out, as the diffusers pipeline computes them."""

from collections.abc import Sequence

import torch
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from shared.models.contracts.clip import Clip
from shared.models.contracts.text_encoder import Encoded
from shared.models.families.sdxl.options import TEXT_ENCODERS
from shared.models.files.directory import read_json
from shared.models.lowrank.bank import Use
from shared.models.lowrank.weights import Adapter


class SdxlTextEncoder:
    """Implements `TextEncoder`. Loads a model's `tokenizer*` and `text_encoder*`, nothing else.

    SDXL (arXiv 2307.01952 §2.1): the penultimate hidden states of both encoders side by side, and
    the pooled, projected output of the second.
    """

    def __init__(self, source: str, device: str, dtype: torch.dtype) -> None:
        index = read_json(source, "model_index.json")
        self.zeros_for_empty_prompt = bool(index.get("force_zeros_for_empty_prompt", True))
        kinds = (CLIPTextModel, CLIPTextModelWithProjection)
        self._clips = [
            Clip(kind, source, folder, device, dtype)
            for kind, folder in zip(kinds, TEXT_ENCODERS, strict=True)
        ]

    def check(self, adapter: Adapter) -> None:
        for clip in self._clips:
            clip.check(adapter)

    @torch.inference_mode()
    def __call__(
        self, prompts: Sequence[str], adapters: Sequence[Sequence[Use]] = ()
    ) -> list[Encoded]:
        (first, counts), (second, others) = (
            clip(prompts, adapters, output_hidden_states=True) for clip in self._clips
        )
        embeds = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1).cpu()
        pooled, counts = second[0].cpu(), torch.maximum(counts, others)
        return [
            Encoded(
                {"embeds": embeds[i], "pooled": pooled[i]},
                int(counts[i]),
                tuple(cut for clip in self._clips for cut in clip.unread(prompt)),
            )
            for i, prompt in enumerate(prompts)
        ]
