"""Stable Diffusion's text encoder, as the diffusers pipeline asks it."""

from collections.abc import Sequence

import torch
from transformers import CLIPTextModel

from shared.models.contracts.clip import Clip
from shared.models.contracts.text_encoder import Encoded
from shared.models.lowrank.bank import Use
from shared.models.lowrank.weights import Adapter


class SdTextEncoder:
    """Implements `TextEncoder`. Loads a model's `tokenizer` and `text_encoder`, nothing else.

    The sequence is CLIP's last hidden states after its final norm. Version 2 wants the states of
    the layer before the last: its files have OpenCLIP without the last layer."""

    zeros_for_empty_prompt = False

    def __init__(self, source: str, device: str, dtype: torch.dtype) -> None:
        self._clip = Clip(CLIPTextModel, source, "text_encoder", device, dtype, masks=True)

    def check(self, adapter: Adapter) -> None:
        self._clip.check(adapter)

    @torch.inference_mode()
    def __call__(
        self, prompts: Sequence[str], adapters: Sequence[Sequence[Use]] = ()
    ) -> list[Encoded]:
        output, counts = self._clip(prompts, adapters)
        embeds = output.last_hidden_state.cpu()
        return [
            Encoded({"embeds": embeds[i]}, int(counts[i]), self._clip.unread(prompt))
            for i, prompt in enumerate(prompts)
        ]
