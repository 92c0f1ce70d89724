"""Log-probs of given texts under a language model.

    log P(text | prompt) = sum_t log p(token_t | prompt, tokens before t)          in nats, at temperature 1

The last token is the end token, so the probabilities of all texts after a prompt add up to 1. Without it (`ends=False`) the value is the
probability of all texts with this prefix. A text is tokenized by the tokenizer; other token sequences of the same text, which a trained
model hardly ever samples, are not counted. A prompt and its texts are one tree of the forest.

Left out: the sum over all tokenizations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from transformers import PreTrainedTokenizerBase

from ikusei.forest import plant
from ikusei.models.causal import CausalModel
from ikusei.text.chat import continuation
from ikusei.types import Group, Prompt, Response, TextLogprobs

TOKENS_PER_MICROBATCH = 8192  # of one forward pass


def score(
    causal: CausalModel, tokenizer: PreTrainedTokenizerBase, prompt: Prompt, texts: Sequence[str], ends: bool = True
) -> list[TextLogprobs]:
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
    microbatches = plant([Group(prompt, tuple(responses))]).split(TOKENS_PER_MICROBATCH)
    with torch.no_grad():
        logp_M = torch.cat([causal.outputs(each.to(causal.device)).logp_M.cpu() for each in microbatches])
    logp_RT = logp_M.split([len(response.tokens) for response in responses])
    return [
        TextLogprobs(response.text, tuple(tokenizer.convert_ids_to_tokens(list(response.tokens))), tuple(logp_T.tolist()), ends)
        for response, logp_T in zip(responses, logp_RT, strict=True)
    ]


def _response(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, text: str, ends: bool) -> Response:
    whole = continuation(tokenizer, prompt, text)
    if ends:
        return whole
    if len(whole.tokens) == 1:
        raise ValueError(f"text {text!r}: every string begins so, its probability is 1; give one character or more, or count its end too")
    return replace(whole, tokens=whole.tokens[:-1], mask=whole.mask[:-1])
