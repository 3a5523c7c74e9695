"""SDXL's two text encoders: prompts in, embeddings out, as the diffusers pipeline computes them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from shared.adapters.adapter import Adapter
from shared.adapters.bank import AdaptedNetwork, Use
from shared.catalogue import local_directory

TEXT_PARTS: Final = ("text_encoder", "text_encoder_2")


@dataclass(frozen=True, slots=True)
class Encoded:
    """`embeds`: (tokens, width of both encoders); `pooled`: (projection,)."""

    embeds: torch.Tensor
    pooled: torch.Tensor


class SdxlTextEncoder:
    """Loads `tokenizer*` and `text_encoder*` of a model, and nothing else of it.

    SDXL (arXiv 2307.01952 §2.1): the penultimate hidden states of both encoders side by side, and
    the pooled, projected output of the second.
    """

    def __init__(self, source: str, device: str, dtype: torch.dtype) -> None:
        self._device = device
        root = local_directory(source)
        index = json.loads((root / "model_index.json").read_text("utf-8"))
        self.zeros_for_empty_prompt = bool(index.get("force_zeros_for_empty_prompt", True))
        self._tokenizers = [
            CLIPTokenizer.from_pretrained(source, subfolder=folder)
            for folder in ("tokenizer", "tokenizer_2")
        ]
        self._encoders: list[Any] = [
            kind.from_pretrained(source, subfolder=folder, dtype=dtype, use_safetensors=True)
            .to(device)
            .eval()
            for kind, folder in (
                (CLIPTextModel, TEXT_PARTS[0]),
                (CLIPTextModelWithProjection, TEXT_PARTS[1]),
            )
        ]

        self._adapted = [
            AdaptedNetwork(part, encoder)
            for part, encoder in zip(TEXT_PARTS, self._encoders, strict=True)
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
        pooled = torch.empty(0)
        for tokenizer, encoder, adapted in zip(
            self._tokenizers, self._encoders, self._adapted, strict=True
        ):
            tokens = tokenizer(
                list(prompts),
                padding="max_length",
                max_length=tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            ).input_ids
            with adapted.using(adapted.bank(adapters)):
                output = encoder(tokens.to(self._device), output_hidden_states=True)
            hidden.append(output.hidden_states[-2])
            pooled = output[0]
        embeds = torch.cat(hidden, dim=-1).cpu()
        pooled = pooled.cpu()
        return [Encoded(embeds[i], pooled[i]) for i in range(len(prompts))]
