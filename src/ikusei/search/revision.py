"""Revision: the model sees its last answer in a further turn of the conversation, and answers again.   arXiv:2408.03314

    prompt | answer 1 <end> | <user> look again <end> <assistant> | answer 2 <end> | ...        mask: written, given, written, ...

The last answer counts, or the one that a chooser takes. An answer's tokens hold the whole way to it, so that it can be trained on; its text
is the last turn alone, which a reward reads. It is shown whole, also a thought that the template would leave out of earlier turns.

Left out: a critic of its own between the turns; hints of what is wrong, which would be the grader's knowledge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from ikusei.samplers.continuation import Writer
from ikusei.samplers.partial import Draft, after
from ikusei.search.choosing import Chooser, choose
from ikusei.search.thinker import Found, Guide
from ikusei.text.conversation import encode, rendered, turn
from ikusei.types import Group, Message, Prompt, content_id

ANSWER = "answer 7f3a"  # in no chat template by itself
AGAIN = "Look at your answer again. If something in it is wrong, put it right. Then give the whole answer once more."


@dataclass(frozen=True)
class Revision:
    """`n` answers, the first included, each of `sampling.max_tokens` at most. `chooser` None: the last. One of rewards needs a guide."""

    n: int = 4
    words: str = AGAIN
    chooser: Chooser | None = None

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"got n={self.n}; allowed: 1 answer or more")

    def think(self, writer: Writer, prompts: Sequence[Prompt], guide: Guide | None = None) -> list[Found]:
        """Raises ValueError where there is no chat template. Where the context is full, the answer stays as it is."""
        words, end = further_turn(writer.tokenizer, self.words)
        rows = [[draft.response] for (draft,) in writer.write([Draft(prompt) for prompt in prompts])]
        tokens = [len(row[0].tokens) for row in rows]
        for _ in range(self.n - 1):
            given = [words[end:] if row[-1].stop == "eos" else words for row in rows]
            before = [row[-1].tokens + more for row, more in zip(rows, given, strict=True)]
            fits = [p for p, prompt in enumerate(prompts) if len(prompt.tokens) + len(before[p]) < writer.context]
            longer = [replace(prompts[p], id=content_id(prompts[p].id, before[p]), tokens=prompts[p].tokens + before[p]) for p in fits]
            for p, (draft,) in zip(fits, writer.write([Draft(prompt) for prompt in longer]) if fits else [], strict=True):
                tokens[p] += draft.written
                rows[p].append(after(rows[p][-1], given[p], draft.response))
        groups = [Group(prompt, tuple(row)) for prompt, row in zip(prompts, rows, strict=True)]
        groups = guide(groups) if guide else groups
        chosen = [choose(self.chooser, group.responses) if self.chooser else group.responses[-1] for group in groups]
        return [Found(one, group.responses, spent) for one, group, spent in zip(chosen, groups, tokens, strict=True)]


def further_turn(tokenizer: PreTrainedTokenizerBase, words: str) -> tuple[tuple[int, ...], int]:
    """What stands between an answer and the next, in tokens, and how many of them end the answer: those are not given where it has ended.

    Raises:
        ValueError: the tokenizer has no chat template.
    """
    if not tokenizer.chat_template:
        raise ValueError("revision: the tokenizer has no chat template, so there is no further turn; take another method, such as vote")
    said = [("user", "a question"), ("assistant", ANSWER), ("user", words)]
    text = rendered(tokenizer, [Message(role=role, content=content) for role, content in said], answer_next=True)
    tokens, end = encode(tokenizer, text.partition(ANSWER)[2]), turn(tokenizer)[1]
    return tokens, tokens.index(end) + 1 if end in tokens else 0
