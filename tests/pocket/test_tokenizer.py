"""The tokenizers: the grammar's words are single tokens, and any other text still goes in."""

import pytest
from transformers import CLIPTokenizer

from pocket.captions import vocabulary
from pocket.paint import MODEL
from pocket.train.sdxl.tokenizer import MAX_LENGTH, learn_merges, write_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def test_every_word_of_the_grammar_is_one_token(tokenizer: CLIPTokenizer) -> None:
    for word in vocabulary():
        assert len(tokenizer(word).input_ids) == 3  # begin, the word, end


def test_unknown_words_become_pieces_and_never_the_unknown_token(tokenizer: CLIPTokenizer) -> None:
    ids = tokenizer("un zèbre 🦓 painted by Ångström").input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.unk_token_id not in ids[1:-1]


def test_prompts_are_padded_and_cut_to_the_model_s_length(tokenizer: CLIPTokenizer) -> None:
    for text in ("", "a red star", "a red star " * 50):
        ids = tokenizer(text, padding="max_length", truncation=True).input_ids
        assert len(ids) == MAX_LENGTH
        assert tokenizer.eos_token_id in ids


def test_merges_are_learnt_over_all_words_at_once() -> None:
    merges = learn_merges(["star", "tar", "start"])
    assert ("t", "a") in merges or ("a", "r</w>") in merges
    assert {"".join(pair) for pair in merges} >= {"star</w>", "tar</w>", "start</w>"}


@pytest.mark.parametrize("name", ["tokenizer", "tokenizer_2"])
def test_the_shipped_tokenizers_are_the_ones_this_code_writes(
    tokenizer: CLIPTokenizer, name: str
) -> None:
    shipped = CLIPTokenizer.from_pretrained(MODEL / name)
    assert shipped.get_vocab() == tokenizer.get_vocab()
    text = "a large red circle left and a small blue square right on white"
    assert shipped(text).input_ids == tokenizer(text).input_ids
    assert shipped.model_max_length == MAX_LENGTH
