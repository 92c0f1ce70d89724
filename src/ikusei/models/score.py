"""log P of given strings: a language model is a distribution over strings, and this asks it how likely each of them is.

    log P(text | prompt) = sum_t log p(token_t | prompt, tokens before t)          in nats, at temperature 1

The last token is the one that ends the text, so the probabilities of all texts after one prompt add up to 1. Without it (`ends=False`) the
number is the probability of all strings that begin so. A text is scored in the tokens that its tokenizer gives it; the same text can be
spelled in other tokens too, which a trained model hardly ever does. One prompt and its texts are one tree of the forest.

Left out: the sum over all spellings.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from ikusei.forest import plant
from ikusei.models.causal import CausalModel
from ikusei.text.chat import continuation
from ikusei.types import Group, Prompt, Response

TOKENS_PER_PART = 8192  # tokens that go through the model at once


@dataclass(frozen=True, slots=True)
class Scored:
    """One text under a model; T tokens. `ended` tells whether the last one is the token that ends it."""

    text: str
    tokens: tuple[str, ...]  # [T] as the tokenizer names them
    logprobs: tuple[float, ...]  # [T] nats
    ended: bool

    @property
    def logp(self) -> float:
        """Nats."""
        return math.fsum(self.logprobs)

    @property
    def probability(self) -> str:
        """exp(logp) in digits, also where it is too small for a float."""
        log10 = self.logp / math.log(10)
        return f"{math.exp(self.logp):.3g}" if log10 > -300 else f"{10 ** (log10 % 1):.3g}e{math.floor(log10)}"

    @property
    def per_token(self) -> float:
        """Nats a token, the one that ends it included."""
        return self.logp / len(self.logprobs)

    @property
    def bits_per_byte(self) -> float:
        """What the text costs, over its UTF-8 bytes: comparable between tokenizers. Infinite for the empty text."""
        size = len(self.text.encode())
        return -self.logp / math.log(2) / size if size else math.inf

    @property
    def spelled(self) -> list[tuple[str, float]]:
        """Each token with its log p."""
        return list(zip(self.tokens, self.logprobs, strict=True))


def score(causal: CausalModel, tokenizer: PreTrainedTokenizerBase, prompt: Prompt, texts: Sequence[str], ends: bool = True) -> list[Scored]:
    """Each text as a continuation of the prompt, in the order given.

    Raises ValueError for a text that does not fit the model's context, and for the empty one where its end is not counted.
    """
    if not texts:
        return []
    context = causal.context
    responses = [_response(tokenizer, prompt, text, ends) for text in texts]
    for response in responses:
        if len(prompt.tokens) + len(response.tokens) > context:
            raise ValueError(
                f"text {response.text[:60]!r}: it takes {len(response.tokens)} tokens after a prompt of {len(prompt.tokens)}; "
                f"the model's context holds {context}; shorten it, or take a model with a longer context"
            )
    parts = plant([Group(prompt, tuple(responses))]).split(TOKENS_PER_PART)
    with torch.no_grad():
        logp_M = torch.cat([causal.outputs(part.to(causal.device)).logp_M.cpu() for part in parts])
    logp_RT = logp_M.split([len(response.tokens) for response in responses])
    return [
        Scored(response.text, tuple(tokenizer.convert_ids_to_tokens(list(response.tokens))), tuple(logp_T.tolist()), ends)
        for response, logp_T in zip(responses, logp_RT, strict=True)
    ]


def read_texts(file: Path) -> list[str]:
    """The texts of a file: a line each, or from .jsonl the strings, or the `text` of each row. Raises ValueError with the line."""
    if not file.is_file():
        raise ValueError(f"{file}: no such file; allowed: a text file with one text a line, or .jsonl with a `text` in each row")
    lines = [(number, line) for number, line in enumerate(file.read_text("utf-8-sig").split("\n"), 1) if line.strip()]
    return [_of_json(file, number, line) if file.suffix == ".jsonl" else line for number, line in lines]


def _response(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, text: str, ends: bool) -> Response:
    whole = continuation(tokenizer, prompt, text)
    if ends:
        return whole
    if len(whole.tokens) == 1:
        raise ValueError(f"text {text!r}: every string begins so, its probability is 1; give one character or more, or count its end too")
    return replace(whole, tokens=whole.tokens[:-1], mask=whole.mask[:-1])


def _of_json(file: Path, number: int, line: str) -> str:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}:{number}: not JSON: {error.msg}; allowed: a string, or an object with a `text`, in each line") from None
    text = row.get("text") if isinstance(row, dict) else row
    if not isinstance(text, str):
        raise ValueError(f"{file}:{number}: no text; allowed: a string, or an object with a `text`; rename the column that holds it")
    return text
