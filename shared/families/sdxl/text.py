"""SDXL's two text encoders: prompts in, embeddings out, as the diffusers pipeline computes them."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from shared.adapters.bank import AdaptedNetwork, Use
from shared.adapters.low_rank import Adapter
from shared.families.sdxl.options import TEXT_ENCODERS
from shared.families.text import Encoded, Unread, load_encoder, refuse_strange_tokens, unread
from shared.model_files import read_json


class SdxlTextEncoder:
    """Implements `TextEncoder`. Loads a model's `tokenizer*` and `text_encoder*`, nothing else.

    SDXL (arXiv 2307.01952 §2.1): the penultimate hidden states of both encoders side by side, and
    the pooled, projected output of the second.
    """

    def __init__(self, source: str, device: str, dtype: torch.dtype) -> None:
        self._device = device
        index = read_json(source, "model_index.json")
        self.zeros_for_empty_prompt = bool(index.get("force_zeros_for_empty_prompt", True))
        self._tokenizers = [
            CLIPTokenizer.from_pretrained(source, subfolder=folder)
            for folder in ("tokenizer", "tokenizer_2")
        ]
        kinds = (CLIPTextModel, CLIPTextModelWithProjection)
        self._encoders: list[Any] = [
            load_encoder(kind, source, folder, device, dtype)
            for kind, folder in zip(kinds, TEXT_ENCODERS, strict=True)
        ]
        for tokenizer, encoder, folder in zip(
            self._tokenizers, self._encoders, ("tokenizer", "tokenizer_2"), strict=True
        ):
            refuse_strange_tokens(tokenizer, encoder, folder)
        self._adapted = [
            AdaptedNetwork(part, encoder)
            for part, encoder in zip(TEXT_ENCODERS, self._encoders, strict=True)
        ]

    def check(self, adapter: Adapter) -> None:
        """Raises `AdapterUnusable` if it does not fit these encoders."""
        for adapted in self._adapted:
            adapted.check(adapter)

    @torch.inference_mode()
    def __call__(
        self, prompts: Sequence[str], adapters: Sequence[Sequence[Use]] = ()
    ) -> list[Encoded]:
        """Encode all `prompts` in one batch, prompt i with `adapters[i]`, if there are any; texts
        beyond the tokenizer's length are cut."""
        hidden: list[torch.Tensor] = []
        counts = torch.zeros(len(prompts), dtype=torch.int64)
        pooled = torch.empty(0)
        for tokenizer, encoder, adapted in zip(
            self._tokenizers, self._encoders, self._adapted, strict=True
        ):
            read = tokenizer(
                list(prompts),
                padding="max_length",
                max_length=tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            )
            counts = torch.maximum(counts, read.attention_mask.sum(dim=1))
            with adapted.using(adapted.bank(adapters)):
                output = encoder(read.input_ids.to(self._device), output_hidden_states=True)
            hidden.append(output.hidden_states[-2])
            pooled = output[0]
        embeds = torch.cat(hidden, dim=-1).cpu()
        pooled = pooled.cpu()
        return [
            Encoded(
                {"embeds": embeds[i], "pooled": pooled[i]}, int(counts[i]), self._unread(prompt)
            )
            for i, prompt in enumerate(prompts)
        ]

    def _unread(self, prompt: str) -> tuple[Unread, ...]:
        return tuple(
            cut
            for tokenizer, folder in zip(self._tokenizers, TEXT_ENCODERS, strict=True)
            for cut in unread(tokenizer, folder, tokenizer.model_max_length, prompt)
        )
