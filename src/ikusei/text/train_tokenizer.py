"""Trains a tokenizer on texts.

    characters   the characters that occur, the most frequent first; others fall back to their bytes
    bpe          byte pair encoding (arXiv:1508.07909) over bytes: merges the most frequent adjacent pair within a word, repeatedly;
                 each digit is a token of its own, so that numbers are always split alike

Both round-trip any text, contain our special tokens, think tags and chat template, and are deterministic in the texts.

Left out: unigram models, normalisation, word segmentation for scripts without spaces (there a word is the text between punctuation).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal, get_args

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ikusei.text.tokenizer import OWN, finished, make_character_tokenizer

Kind = Literal["bpe", "characters"]
SMALLEST = 256 + len(OWN) + 1  # the bytes, our tokens and one that is learned
OWN_TOKEN = re.compile("|".join(map(re.escape, OWN)))


def train_tokenizer(texts: Iterable[str], kind: Kind, vocab_size: int) -> PreTrainedTokenizerFast:
    """A tokenizer of at most `vocab_size` tokens; fewer where the texts give no more. Raises ValueError without any text."""
    if kind not in get_args(Kind):
        raise ValueError(f"tokenizer kind {kind!r}; allowed: {', '.join(get_args(Kind))}")
    if vocab_size < SMALLEST:
        raise ValueError(
            f"tokenizer vocab_size={vocab_size}; allowed: {SMALLEST} or more (256 bytes, {len(OWN)} tokens of ours, one learned)"
        )
    return _train_bpe(texts, vocab_size) if kind == "bpe" else _train_characters(texts, vocab_size)


def _train_characters(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    counts: Counter[str] = Counter()
    for text in _without_own(texts):
        counts.update(text)
    if not counts:
        raise ValueError("tokenizer: no text to learn from; give a task whose rows hold some")
    ordered = sorted(counts, key=lambda character: (-counts[character], character))
    return make_character_tokenizer("".join(ordered[: vocab_size - SMALLEST + 1]))


def _train_bpe(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner = _byte_level(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=vocab_size - len(OWN), initial_alphabet=alphabet, show_progress=False)
    learner.train_from_iterator(_some(_without_own(texts)), trainer)
    merges = [(first, second) for first, second in json.loads(learner.to_str())["model"]["merges"]]
    tokens = dict.fromkeys((*OWN, *alphabet, *(first + second for first, second in merges)))  # two merges may give one token
    return finished(_byte_level(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges)))


def _byte_level(model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _without_own(texts: Iterable[str]) -> Iterator[str]:
    """The texts without our special tokens, which are single tokens already."""
    return (piece for text in texts for piece in OWN_TOKEN.split(text) if piece)


def _some(texts: Iterator[str]) -> Iterator[str]:
    first = next(texts, None)
    if first is None:
        raise ValueError("tokenizer: no text to learn from; give a task whose rows hold some")
    yield first
    yield from texts
