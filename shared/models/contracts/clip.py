"""CLIP's text encoders, of which several families have one or two."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import CLIPTokenizer

from shared.models.contracts.text_encoder import Unread, load_encoder, refuse_strange_tokens, unread
from shared.models.lowrank.bank import AdaptedNetwork, Use
from shared.models.lowrank.weights import Adapter


class ClipRead(NamedTuple):
    output: Any
    """Of the encoder, as transformers has it."""
    counts: torch.Tensor
    """Of tokens, without padding, of each prompt."""


class Clip:
    """The encoder in `folder` of a model, as `kind` of transformers, and its tokenizer."""

    def __init__(
        self,
        kind: Any,
        source: str,
        folder: str,
        device: str,
        dtype: torch.dtype,
        *,
        masks: bool = False,
    ) -> None:
        """`masks`: its config may say that padding is not attended to (`use_attention_mask`)."""
        self.folder, self._device, self._masks = folder, device, masks
        tokenizer = folder.replace("text_encoder", "tokenizer")
        self._tokenizer = CLIPTokenizer.from_pretrained(source, subfolder=tokenizer)
        self.network = load_encoder(kind, source, folder, device, dtype)
        refuse_strange_tokens(self._tokenizer, self.network, tokenizer)
        self.adapted = AdaptedNetwork(folder, self.network)

    def check(self, adapter: Adapter) -> None:
        self.adapted.check(adapter)

    def __call__(
        self, prompts: Sequence[str], adapters: Sequence[Sequence[Use]] = (), **options: Any
    ) -> ClipRead:
        """All `prompts` in one batch, each as long as the tokenizer has it. `options`: of the
        encoder."""
        read = self._tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self._tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        mask = read.attention_mask
        if self._masks and getattr(self.network.config, "use_attention_mask", False):
            options["attention_mask"] = mask.to(self._device)
        with self.adapted.using(self.adapted.bank(adapters)):
            output = self.network(read.input_ids.to(self._device), **options)
        return ClipRead(output, mask.sum(dim=1))

    def unread(self, prompt: str) -> tuple[Unread, ...]:
        return unread(self._tokenizer, self.folder, self._tokenizer.model_max_length, prompt)
