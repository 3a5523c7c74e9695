"""FLUX's two text encoders: prompts in, embeddings out, as the diffusers pipeline computes them."""

from collections.abc import Sequence
from typing import Final

import torch
from transformers import CLIPTextModel, T5EncoderModel, T5TokenizerFast

from shared.models.contracts.clip import Clip
from shared.models.contracts.text_encoder import (
    Encoded,
    Unread,
    load_encoder,
    refuse_strange_tokens,
    unread,
)
from shared.models.lowrank.bank import AdaptedNetwork, Use
from shared.models.lowrank.weights import Adapter

MOST_TOKENS: Final = 512
"""Of T5, as `FluxPipeline` allows; fewer where the model's own tokenizer says so."""


class FluxTextEncoder:
    """Implements `TextEncoder`. Loads a model's `tokenizer*` and `text_encoder*`, nothing else.

    The sequence is T5's last hidden states, as long for every prompt; the pooled vector is CLIP's.
    LoRAs may change both, though diffusers reads none for T5."""

    zeros_for_empty_prompt = False

    def __init__(self, source: str, device: str, dtype: torch.dtype) -> None:
        self._device = device
        self._t5_tokenizer = T5TokenizerFast.from_pretrained(source, subfolder="tokenizer_2")
        self.tokens = min(MOST_TOKENS, self._t5_tokenizer.model_max_length)
        self._clip = Clip(CLIPTextModel, source, "text_encoder", device, dtype)
        self._t5 = load_encoder(T5EncoderModel, source, "text_encoder_2", device, dtype)
        refuse_strange_tokens(self._t5_tokenizer, self._t5, "tokenizer_2")
        self._adapted_t5 = AdaptedNetwork("text_encoder_2", self._t5)

    def check(self, adapter: Adapter) -> None:
        self._clip.check(adapter)
        self._adapted_t5.check(adapter)

    @torch.inference_mode()
    def __call__(
        self, prompts: Sequence[str], adapters: Sequence[Sequence[Use]] = ()
    ) -> list[Encoded]:
        output, counts = self._clip(prompts, adapters)
        pooled = output.pooler_output.cpu()
        long = self._t5_tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self.tokens,
            truncation=True,
            return_tensors="pt",
        )
        with self._adapted_t5.using(self._adapted_t5.bank(adapters)):
            embeds = self._t5(long.input_ids.to(self._device))[0].cpu()
        counts = torch.maximum(counts, long.attention_mask.sum(dim=1))
        return [
            Encoded(
                {"embeds": embeds[i], "pooled": pooled[i]}, int(counts[i]), self._unread(prompt)
            )
            for i, prompt in enumerate(prompts)
        ]

    def _unread(self, prompt: str) -> tuple[Unread, ...]:
        return (
            *self._clip.unread(prompt),
            *unread(self._t5_tokenizer, "text_encoder_2", self.tokens, prompt),
        )
