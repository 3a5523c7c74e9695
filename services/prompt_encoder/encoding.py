"""Prompts in one forward. What comes out as no numbers is encoded once more, in float32."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from shared.errors import NotFinite
from shared.models.contracts.text_encoder import Encoded, TextEncoder
from shared.models.lowrank.bank import Use

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text, and the adapters that its encoding is to be computed with."""

    text: str
    adapters: tuple[Use, ...]


class Once(NamedTuple):
    """An encoding, and whether it took float32, for the encoders' own dtype was too narrow."""

    encoded: Encoded
    widened: bool = False


class Wide:
    """The text encoders of model `name` in float32, loaded when they are needed first."""

    def __init__(self, name: str, load: Callable[[str], TextEncoder]) -> None:
        self._name, self._load = name, load
        self._encoder: TextEncoder | None = None

    def __call__(self, prompt: Prompt) -> Encoded:
        if self._encoder is None:
            log.warning("the text encoders of %s are loaded in float32 as well", self._name)
            self._encoder = self._load(self._name)
        [encoded] = self._encoder([prompt.text], [prompt.adapters])
        return encoded


def encode_each(
    encoder: TextEncoder, wide: Wide | None, prompts: Sequence[Prompt]
) -> list[Once | NotFinite]:
    """All of them together; of those that come to no finite numbers, also in float32, the error."""
    together = encoder([prompt.text for prompt in prompts], [prompt.adapters for prompt in prompts])
    found: list[Once | NotFinite] = []
    for prompt, encoded in zip(prompts, together, strict=True):
        once = Once(encoded)
        if not encoded.finite and wide is not None:
            once = Once(wide(prompt), widened=True)
        found.append(once if once.encoded.finite else NotFinite(_reason(prompt)))
    return found


def _reason(prompt: Prompt) -> str:
    names = ", ".join(adapter.name for adapter, _ in prompt.adapters)
    loras = f" with the LoRAs {names}" if names else ""
    return f"what the text encoders make of the prompt{loras} is not finite"
