"""A family's text encoders behind one contract."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from shared.adapters.adapter import Adapter
from shared.adapters.bank import Use


@dataclass(frozen=True, slots=True)
class Encoded:
    """A prompt as the network is told it: `embeds` (tokens, width), `pooled` (projection,)."""

    embeds: torch.Tensor
    pooled: torch.Tensor


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
        tokenizers' length are cut. On the CPU."""
        ...
