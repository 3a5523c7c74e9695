"""What text encoders make of a prompt is numbers, or an error."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch

from services.prompt_encoder.encoding import Once, Prompt, Wide, encode_each
from shared.errors import NotFinite
from shared.models.contracts.text_encoder import Encoded


class Narrow:
    """Gives no numbers for prompts that begin with "hot"."""

    zeros_for_empty_prompt = False

    def check(self, adapter: Any) -> None: ...

    def __call__(self, prompts: Sequence[str], adapters: Sequence[Any] = ()) -> list[Encoded]:
        values = [float("inf") if prompt.startswith("hot") else 1.0 for prompt in prompts]
        return [Encoded({"words": torch.full((2, 3), value)}) for value in values]


class Broad(Narrow):
    """Gives none for "hottest" alone."""

    def __call__(self, prompts: Sequence[str], adapters: Sequence[Any] = ()) -> list[Encoded]:
        return super().__call__(
            [text.replace("hottest", "hot").replace("hot ", "") for text in prompts]
        )


def test_only_what_is_not_finite_is_encoded_again_and_says_so() -> None:
    loaded: list[str] = []

    def load(name: str) -> Broad:
        loaded.append(name)
        return Broad()

    wide = Wide("m", load)
    prompts = [Prompt("a cat", ()), Prompt("hot soup", ()), Prompt("hottest", ())]
    assert isinstance(encode_each(Narrow(), wide, prompts[:1])[0], Once)
    assert not loaded
    cool, hot, hottest = encode_each(Narrow(), wide, prompts)
    assert isinstance(cool, Once)
    assert not cool.widened
    assert isinstance(hot, Once)
    assert hot.widened
    assert isinstance(hottest, NotFinite)
    encode_each(Narrow(), wide, prompts)
    assert loaded == ["m"]


def test_without_float32_to_go_to_it_is_an_error_that_names_the_loras() -> None:
    lora: Any = SimpleNamespace(name="neon")
    [error] = encode_each(Narrow(), None, [Prompt("hot soup", ((lora, 1.0),))])
    assert isinstance(error, NotFinite)
    assert "with the LoRAs neon is not finite" in error.message
