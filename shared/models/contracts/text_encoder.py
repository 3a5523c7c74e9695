"""A family's text encoders behind one contract."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch

from shared.errors import Misconfigured
from shared.models.lowrank.bank import Use
from shared.models.lowrank.weights import Adapter
from shared.models.weights.load import load_of_transformers

MARKS: Final = 2
"""Tokens that mark the beginning and the end of a prompt, at most."""


@dataclass(frozen=True, slots=True)
class Unread:
    """What an encoder did not read of a prompt of `tokens` tokens, for it reads no more than
    `limit`; both count the marks of beginning and end."""

    encoder: str
    """Its folder in the model."""
    limit: int
    tokens: int
    text: str
    """The end of the prompt, as it was written."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A prompt as the network takes it: the tensors of `Family.conditioning`, in its order."""

    tensors: Mapping[str, torch.Tensor]
    tokens: int = 0
    """Of the prompt, without padding, as the encoder reads it that reads most."""
    unread: tuple[Unread, ...] = ()
    """By encoder, as far as one did not read all of it."""

    @property
    def finite(self) -> bool:
        """None of its numbers has become NaN or infinite."""
        return all(bool(tensor.isfinite().all()) for tensor in self.tensors.values())

    def zeros(self) -> "Encoded":
        """What stands for a negative prompt that was not given; see `zeros_for_empty_prompt`."""
        return Encoded({name: torch.zeros_like(one) for name, one in self.tensors.items()})


class TextEncoder(Protocol):
    """Prompts of one call must not influence each other."""

    zeros_for_empty_prompt: bool
    """Whether zeros stand for a negative prompt that was not given, and not the empty text."""

    def check(self, adapter: Adapter) -> None:
        """Raises `AdapterUnusable` if it does not fit these encoders."""
        ...

    def __call__(
        self, prompts: Sequence[str], adapters: Sequence[Sequence[Use]] = ()
    ) -> list[Encoded]:
        """Encode all `prompts`, prompt i with `adapters[i]`, if there are any; texts beyond the
        tokenizers' length are cut, and `unread` says where. On the CPU."""
        ...


def load_encoder(kind: Any, source: str, folder: str, device: str, dtype: torch.dtype) -> Any:
    """The text encoder in a model's `folder`, as `kind` of transformers. Raises `Misconfigured`, or
    whatever loading does."""
    return load_of_transformers(kind, source, folder, dtype).to(device).eval()


def refuse_strange_tokens(tokenizer: Any, encoder: Any, folder: str) -> None:
    """Raises `Misconfigured` if the `tokenizer` in a model's `folder` may give tokens that its text
    encoder does not know, or none but its marks, as one does that lacks its files."""
    most = getattr(encoder.config, "max_position_embeddings", None)
    if most is not None and tokenizer.model_max_length > most:
        raise Misconfigured(
            f"{folder}/tokenizer_config.json: model_max_length is {tokenizer.model_max_length}; "
            f"its text encoder takes up to {most} tokens"
        )
    tokens, known = len(tokenizer), int(encoder.get_input_embeddings().num_embeddings)
    if tokens > known:
        raise Misconfigured(f"{folder}/ has {tokens} tokens, and its text encoder knows {known}")
    marks = set(tokenizer.all_special_ids)
    if set(tokenizer("a red circle").input_ids) <= marks:
        raise Misconfigured(f"{folder}/ has no tokens for words; are all of its files there?")


def unread(tokenizer: Any, encoder: str, limit: int, prompt: str) -> tuple[Unread, ...]:
    """What is cut of `prompt` where this (fast) `tokenizer` gives its `encoder` `limit` tokens."""
    if prompt.isascii() and len(prompt) <= limit - MARKS:  # others may be spelt out in more letters
        return ()
    tokens = len(tokenizer(prompt, verbose=False).input_ids)
    if tokens <= limit:
        return ()
    kept = tokenizer(prompt, truncation=True, max_length=limit, return_offsets_mapping=True)
    end = max(end for _, end in kept.offset_mapping)
    return (Unread(encoder, limit, tokens, prompt[end:]),)
