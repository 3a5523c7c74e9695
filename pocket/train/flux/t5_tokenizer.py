"""A T5 tokenizer of our own: one token for each word of the grammar, letters for the rest."""

from pathlib import Path
from string import ascii_letters, digits, punctuation

from transformers import T5TokenizerFast

from pocket.captions import vocabulary

MAX_SEQUENCE_LENGTH = 32
"""Tokens of a prompt, the end included. FLUX attends to padding, so every prompt has so many."""

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
_SPACE = "\u2581"  # SentencePiece's mark of a word's beginning
_WORD, _LETTER = -2.0, -10.0  # log-probabilities: a whole word beats its letters


def write_t5_tokenizer(folder: Path) -> T5TokenizerFast:
    """Write tokenizer.json and its configuration into `folder`, and load them back."""
    tokenizer = T5TokenizerFast(vocab=_pieces(), extra_ids=0, model_max_length=MAX_SEQUENCE_LENGTH)
    tokenizer.save_pretrained(folder)
    return T5TokenizerFast.from_pretrained(folder)


def _pieces() -> list[tuple[str, float]]:
    """Unigram pieces and scores, special ones first, as T5 has them.

    T5 has no lower-casing, so a word that begins with a capital is a piece of its own.
    """
    marks, words = (",", ":"), [word for word in vocabulary() if word.isalpha()]
    letters = [_SPACE, *ascii_letters, *digits, *punctuation]
    whole = [*marks, *(_SPACE + form for word in words for form in (word, word.capitalize()))]
    scored = dict.fromkeys(letters, _LETTER) | dict.fromkeys(whole, _WORD)
    return [(name, 0.0) for name in (PAD, END, UNKNOWN)] + sorted(scored.items())
