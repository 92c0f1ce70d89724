"""The text of an unfinished response that no later token can change.

    bytes      a character may span tokens: U+FFFD at the end stands for a part of one
    <0xE3>     of bytes that are tokens of their own, a decoder reads a run as a whole, and a broken one as U+FFFD throughout

Left out: tokenizers that are not BPE and tidy up spaces ("do n't" becomes "don't" once it is whole).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def settled(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> str:
    """The text of the tokens without special tokens, and without the end that may still change."""
    end, special = len(tokens), set(tokenizer.all_special_ids)  # in no text, and no end of a run
    while end and (tokens[end - 1] in special or BYTE.fullmatch(str(tokenizer.convert_ids_to_tokens(tokens[end - 1])))):
        end -= 1
    return str(tokenizer.decode(list(tokens[:end]), skip_special_tokens=True)).rstrip("\ufffd")
