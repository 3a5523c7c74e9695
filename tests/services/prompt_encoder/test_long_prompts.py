"""Prompts beyond what the text encoders read: what is cut is told, as it was written."""

import functools
from typing import Any, Final

import pytest
import torch
from transformers import CLIPTokenizer, T5TokenizerFast

from services.prompt_encoder.service import cut_warnings
from shared.models.contracts.text_encoder import Unread, unread
from shared.models.families.flux.text import FluxTextEncoder
from shared.models.families.sdxl.text import SdxlTextEncoder
from shared.shipped import MODELS

CAPTION: Final = "A large RED circle left,  and a small blue square right on white. "
KINDS: Final[dict[tuple[str, str], Any]] = {
    ("pocket-sdxl", "tokenizer"): CLIPTokenizer,
    ("pocket-flux", "tokenizer_2"): T5TokenizerFast,
}


@functools.cache
def tokenizer_of(model: str, folder: str) -> Any:
    return KINDS[model, folder].from_pretrained(MODELS[model], subfolder=folder)


@pytest.mark.parametrize(("model", "folder"), KINDS)
@pytest.mark.parametrize("repeats", [3, 8])
def test_what_is_cut_is_what_diffusers_pipelines_say_they_removed(
    model: str, folder: str, repeats: int
) -> None:
    tokenizer, prompt = tokenizer_of(model, folder), CAPTION * repeats
    limit = tokenizer.model_max_length
    [cut] = unread(tokenizer, "e", limit, prompt)
    ids = tokenizer(prompt, return_tensors="pt", verbose=False).input_ids
    assert (cut.limit, cut.tokens) == (limit, ids.shape[-1])
    [removed] = tokenizer.batch_decode(ids[:, limit - 1 : -1])
    assert _letters(cut.text) == _letters(removed)
    assert prompt.endswith(cut.text)


def _letters(text: str) -> str:
    return "".join(text.lower().split())


@pytest.mark.parametrize(("model", "folder"), KINDS)
def test_a_prompt_that_just_fits_is_read_whole_and_one_token_more_is_cut(
    model: str, folder: str
) -> None:
    tokenizer = tokenizer_of(model, folder)
    limit, words = tokenizer.model_max_length, 0
    while len(tokenizer(" red" * (words + 1), verbose=False).input_ids) <= limit:
        words += 1
    assert unread(tokenizer, "e", limit, " red" * words) == ()
    [cut] = unread(tokenizer, "e", limit, " red" * (words + 1))
    assert (cut.tokens, cut.text.strip()) == (limit + 1, "red")


@pytest.mark.parametrize("prompt", ["", "red", "ä" * 20, "🙂" * 10])
def test_a_short_prompt_is_read_whole(prompt: str) -> None:
    assert unread(tokenizer_of("pocket-sdxl", "tokenizer"), "e", 1000, prompt) == ()


@pytest.mark.parametrize(("model", "folder"), KINDS)
@pytest.mark.parametrize("word", ["ﷺ", "🙂", "Ǆ", "日本", "e\u0301"])
def test_letters_that_become_several_tokens_are_counted_as_those(
    model: str, folder: str, word: str
) -> None:
    tokenizer, prompt = tokenizer_of(model, folder), word * 14
    limit, length = tokenizer.model_max_length, len(tokenizer(prompt, verbose=False).input_ids)
    cuts = unread(tokenizer, "e", limit, prompt)
    assert [cut.tokens for cut in cuts] == ([length] if length > limit else [])
    assert all(prompt.endswith(cut.text) for cut in cuts)


def test_sdxl_says_what_both_of_its_encoders_cut() -> None:
    encoder = SdxlTextEncoder(MODELS["pocket-sdxl"], "cpu", torch.float32)
    short, long = encoder(["a red circle", CAPTION * 8])
    assert short.unread == ()
    assert (short.tokens, long.tokens) == (5, 40)
    assert [cut.encoder for cut in long.unread] == ["text_encoder", "text_encoder_2"]
    [warning] = cut_warnings("prompt", long.unread)
    assert warning.startswith("prompt: text_encoder and text_encoder_2 read 40 of its ")
    assert warning.endswith(' right on white."')


def test_flux_says_what_each_of_its_encoders_cut() -> None:
    encoder = FluxTextEncoder(MODELS["pocket-flux"], "cpu", torch.float32)
    short, long = encoder(["a red circle", CAPTION * 8])
    assert short.unread == ()
    assert (short.tokens, long.tokens) == (5, 40)
    first, second = cut_warnings("prompt", long.unread)
    assert first.startswith("prompt: text_encoder read 40 of its ")
    assert second.startswith("prompt: text_encoder_2 read 32 of its ")


def test_a_cut_is_told_by_the_field_and_as_it_was_written() -> None:
    cut = Unread("text_encoder", 77, 79, ' "Süden"\n')
    assert cut_warnings("negative_prompt", [cut]) == [
        "negative_prompt: text_encoder read 77 of its 79 tokens; what was cut is " + r'"\"Süden\""'
    ]
