"""A tokenizer of single characters, for models made from scratch.

One character is one token, so a model of two million parameters can see the digits that it adds, and the vocabulary (about 470) costs it
almost nothing. Built with `tokenizers` as BPE without merges: a character outside the vocabulary falls back to its UTF-8 bytes, so any text
round-trips. `<think>` and `</think>` are one ordinary token each: they are text that a person may read and a reward may ask for.

Characters of a corpus, and byte-level BPE, are trained in `train.py`; they have the same special tokens and chat template.
"""

from __future__ import annotations

import string

from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

BEGIN, END, PAD, USER, ASSISTANT = "<|begin|>", "<|end|>", "<|pad|>", "<|user|>", "<|assistant|>"
SPECIAL = (PAD, BEGIN, END, USER, ASSISTANT)
THINK = ("<think>", "</think>")
OWN = (*SPECIAL, *THINK)  # the first tokens of every vocabulary of ours

ASCII = "\n" + string.digits + string.ascii_letters + string.punctuation + " "
HIRAGANA = "".join(chr(code) for code in range(ord("ぁ"), ord("ゖ") + 1))
MARKS = "ー。、！？「」『』（）・〜…"

# The begin token stands at the front once; a system message is plain text before the first turn. The generation markers tell which tokens
# are the assistant's own: its words and the end token.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}"
    f"{{% elif message['role'] == 'user' %}}{USER}{{{{ message['content'] }}}}{{{{ eos_token }}}}"
    f"{{% elif message['role'] == 'assistant' %}}{ASSISTANT}"
    "{% generation %}{{ message['content'] }}{{ eos_token }}{% endgeneration %}"
    "{% else %}{{ raise_exception('role ' ~ message['role'] ~ '; allowed: system, user, assistant') }}{% endif %}"
    "{% endfor %}"
    f"{{% if add_generation_prompt %}}{ASSISTANT}{{% endif %}}"
)


def make_character_tokenizer(characters: str = ASCII + HIRAGANA + MARKS) -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are `characters`, the 256 bytes, the think tags and five special tokens, with a chat template."""
    if not characters or len(set(characters)) != len(characters):
        raise ValueError(f"characters: got {len(characters)}, {len(set(characters))} different; give each once, and at least one")
    tokens = (*OWN, *characters, *(f"<0x{byte:02X}>" for byte in range(256)))
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=[], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return finished(tokenizer)


def finished(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """With the tokens that are ours, which its vocabulary holds already, and the chat template."""
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in THINK])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[USER, ASSISTANT],
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
