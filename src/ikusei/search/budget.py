"""Budget forcing: a thought is made longer, or cut.   s1, arXiv:2501.19393

    stretch     where `</think>` comes, it is dropped and a word such as "Wait" put in its place, so many times, within the budget
    cut         where the thought has `budget` tokens and is not over, `</think>` is put there, and the model must answer

    <think> 8+6=14 7+5 | </think> | 124 <end>            mask: written, given, written

The budget counts the answer's tokens up to the end of the thought, given ones included. What answers without a thought, or ends in the
midst of one, is left as it is. Without stretches, an answer that ends within the budget is the plain sample.

Left out: choosing among answers by the length of their thoughts, which s1 finds to be worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ikusei.samplers.continuation import Writer
from ikusei.samplers.partial import Draft
from ikusei.search.thinker import Found, Guide
from ikusei.text.conversation import decode
from ikusei.types import Prompt

BEGIN, END = "<think>", "</think>"


@dataclass(frozen=True)
class Budget:
    """`budget` tokens at most, `stretches` times `word` in place of the end."""

    budget: int = 1 << 30
    stretches: int = 0
    word: str = "Wait"

    def __post_init__(self) -> None:
        if self.budget < 1 or self.stretches < 0 or not self.word:
            raise ValueError(
                f"got budget={self.budget}, stretches={self.stretches}, word={self.word!r}; allowed: 1 or more, 0 or more, a word"
            )

    def think(self, writer: Writer, prompts: Sequence[Prompt], guide: Guide | None = None) -> list[Found]:
        drafts, left = [Draft(prompt) for prompt in prompts], [self.stretches] * len(prompts)
        tokens, thinking, answering = [0] * len(prompts), list(range(len(prompts))), list[int]()
        stop = (END,) if self.stretches else ()
        while thinking:
            most = [self.budget - len(drafts[p].response.tokens) for p in thinking]
            for p, (draft,) in zip(thinking, writer.write([drafts[p] for p in thinking], 1, stop, most), strict=True):
                tokens[p] += draft.written
                longer = self._stretched(writer, draft) if left[p] else None
                drafts[p], left[p] = (self._cut(writer, draft), -1) if longer is None else (longer, left[p] - 1)
            answering += [p for p in thinking if left[p] < 0 and not drafts[p].response.stop]
            thinking = [p for p in thinking if left[p] >= 0]
        for p, (draft,) in zip(answering, writer.write([drafts[p] for p in answering]), strict=True):
            tokens[p] += draft.written
            drafts[p] = draft
        return [Found(draft.response, (draft.response,), spent) for draft, spent in zip(drafts, tokens, strict=True)]

    def _stretched(self, writer: Writer, draft: Draft) -> Draft | None:
        """With the word in place of the end of the thought; None where there is no such end, or no room."""
        size, before = len(draft.response.tokens), draft.response.text.find(END)
        if draft.response.stop or before < 0:
            return None
        while len(writer.cut(draft.response, size).text) > before:
            size -= 1
        longer = writer.force(replace(draft, response=writer.cut(draft.response, size)), self.word)
        return None if longer.response.stop or len(longer.response.tokens) >= self.budget else longer

    def _cut(self, writer: Writer, draft: Draft) -> Draft:
        """With the end of the thought, where it is open and at the budget."""
        opened = BEGIN in draft.response.text or decode(writer.tokenizer, draft.prompt.tokens).rstrip().endswith(BEGIN)
        return draft if draft.response.stop or END in draft.response.text or not opened else writer.force(draft, END)
