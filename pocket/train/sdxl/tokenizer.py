"""A CLIP tokenizer of our own: one token for each word of the grammar, bytes for the rest."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from pocket.captions import vocabulary

MAX_LENGTH = 40
"""Tokens of a prompt, begin and end included. The longest caption of the grammar takes 31."""

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"

Pair = tuple[str, str]


def learn_merges(words: list[str]) -> list[Pair]:
    """Byte-pair merges, most frequent pair first, until each word is one token.

    Merges must be learnt over all words at once: merges written word by word would undo each
    other. https://aclanthology.org/P16-1162
    """
    pieces = [[*word[:-1], word[-1] + _WORD_END] for word in words]
    merges: list[Pair] = []
    while pairs := Counter(pair for word in pieces for pair in pairwise(word)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        pieces = [_merged(word, best) for word in pieces]
    return merges


def _merged(word: list[str], pair: Pair) -> list[str]:
    out: list[str] = []
    for piece in word:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return out


def write_tokenizer(folder: Path) -> CLIPTokenizer:
    """Write vocab.json, merges.txt and the rest into `folder`, and load them back."""
    folder.mkdir(parents=True, exist_ok=True)
    merges = learn_merges(vocabulary())
    letters = list(bytes_to_unicode().values())
    tokens = [
        *letters,
        *(letter + _WORD_END for letter in letters),
        *dict.fromkeys("".join(pair) for pair in merges),
        BEGIN,
        END,
    ]
    ids = {token: n for n, token in enumerate(dict.fromkeys(tokens))}
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    tokenizer = CLIPTokenizer(vocab=ids, merges=merges, model_max_length=MAX_LENGTH)
    tokenizer.save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder)
