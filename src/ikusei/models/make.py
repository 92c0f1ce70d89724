"""Make a model from a configuration of any transformers causal language model, with fresh weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ikusei.models.load import load_tokenizer, to_device
from ikusei.text.tokenizer import make_character_tokenizer
from ikusei.text.train_tokenizer import SMALLEST, Kind, train_tokenizer

SAMPLE = "ねこは かわいい。\n12 + 34 = 46, isn't it?"


@dataclass(frozen=True)
class TrainTokenizer:
    """A tokenizer of at most `vocab_size` tokens, trained on the texts of the first `num_rows` rows of the recipe's task."""

    kind: Kind
    vocab_size: int
    num_rows: int = 10_000

    def __post_init__(self) -> None:
        if self.vocab_size < SMALLEST or self.num_rows < 1:
            raise ValueError(f"got vocab_size={self.vocab_size}, num_rows={self.num_rows}; allowed: {SMALLEST} or more, and 1 or more")


@dataclass(frozen=True)
class MakeModel:
    """`architecture` is a transformers model type (qwen3, llama, ...), `config` its configuration's keys. The size of the vocabulary and
    the special tokens come from the tokenizer: "characters", a folder or hub id to take one from, or how to train one."""

    architecture: str
    tokenizer: str | TrainTokenizer = "characters"
    config: Mapping[str, Any] = field(default_factory=dict)


def make_tokenizer(settings: MakeModel, texts: Iterable[str] = ()) -> PreTrainedTokenizerBase:
    """`texts`, one for each row of the task, are read only where a tokenizer is to be trained on them."""
    if isinstance(settings.tokenizer, TrainTokenizer):
        return train_tokenizer(islice(texts, settings.tokenizer.num_rows), settings.tokenizer.kind, settings.tokenizer.vocab_size)
    return make_character_tokenizer() if settings.tokenizer == "characters" else load_tokenizer(settings.tokenizer)


def make_model(settings: MakeModel, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """Random weights that depend on `seed` alone. Raises ValueError for an architecture that transformers does not know, for a vocabulary
    that has no place for some token, and for a tokenizer that would not be read again as it is."""
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    try:
        config = AutoConfig.for_model(settings.architecture, **{"vocab_size": len(tokenizer), **ids, **settings.config})
    except ValueError as error:
        raise ValueError(
            f"model.architecture: got {settings.architecture!r}; allowed: the model types of transformers, for example qwen3, llama, gpt2"
        ) from error
    size = config.get_text_config().vocab_size
    if size < len(tokenizer):
        raise ValueError(
            f"model.config.vocab_size: got {size}, and the tokenizer has {len(tokenizer)} tokens; leave it out, or make it larger"
        )
    _comes_back(tokenizer, config, settings.architecture)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return to_device(model)


def _comes_back(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, architecture: str) -> None:
    """Raises ValueError where transformers would read the tokenizer beside a model of this type as another one than it is."""
    with TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        again = AutoTokenizer.from_pretrained(folder)
    if again(SAMPLE)["input_ids"] != tokenizer(SAMPLE)["input_ids"]:
        raise ValueError(
            f"model.architecture: got {architecture!r}, beside which transformers reads every tokenizer as a {type(again).__name__}, and "
            "this is none, so that what is trained could not be loaded again; take another architecture, such as qwen3 or llama, or the "
            "tokenizer of a model of this family (tokenizer: its folder or hub id)"
        )
