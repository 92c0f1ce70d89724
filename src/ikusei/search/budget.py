"""Budget forcing: a thought is extended, or truncated.   s1, arXiv:2501.19393

    extend      where `</think>` comes, it is dropped and a word such as "Wait" put in its place, so many times, within the budget
    truncate    where the thought has `budget` tokens and is not over, `</think>` is put there, and the model must answer

    <think> 8+6=14 7+5 | </think> | 124 <end>            mask: written, given, written

The budget counts the answer's tokens up to the end of the thought, given ones included. What answers without a thought, or ends in the
midst of one, is left as it is. Without extensions, an answer that ends within the budget is the plain sample.

Left out: choosing among answers by the length of their thoughts, which s1 finds to be worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ikusei.samplers.continuation import Writer
from ikusei.samplers.partial import Partial
from ikusei.search.method import Guide, MethodSpec, Result
from ikusei.types import Prompt

BEGIN, END = "<think>", "</think>"


@dataclass(frozen=True)
class Budget:
    """`budget` tokens at most, `extensions` times `word` in place of the end."""

    budget: int = 1 << 30
    extensions: int = 0
    word: str = "Wait"

    def __post_init__(self) -> None:
        if self.budget < 1 or self.extensions < 0 or not self.word:
            raise ValueError(
                f"got budget={self.budget}, extensions={self.extensions}, word={self.word!r}; allowed: 1 or more, 0 or more, a word"
            )

    def run(self, writer: Writer, prompts: Sequence[Prompt], guide: Guide | None = None) -> list[Result]:
        partials, left = [Partial(prompt) for prompt in prompts], [self.extensions] * len(prompts)
        num_tokens, thinking, answering = [0] * len(prompts), list(range(len(prompts))), list[int]()
        stop = (END,) if self.extensions else ()
        while thinking:
            room = [self.budget - len(partials[p].response.tokens) for p in thinking]
            for p, (partial,) in zip(thinking, writer.write([partials[p] for p in thinking], 1, stop, room), strict=True):
                num_tokens[p] += partial.written
                longer = self._extended(writer, partial) if left[p] else None
                partials[p], left[p] = (self._truncated(writer, partial), -1) if longer is None else (longer, left[p] - 1)
            answering += [p for p in thinking if left[p] < 0 and not partials[p].response.stop]
            thinking = [p for p in thinking if left[p] >= 0]
        for p, (partial,) in zip(answering, writer.write([partials[p] for p in answering]), strict=True):
            num_tokens[p] += partial.written
            partials[p] = partial
        return [Result(each.response, (each.response,), spent) for each, spent in zip(partials, num_tokens, strict=True)]

    def _extended(self, writer: Writer, partial: Partial) -> Partial | None:
        """With the word in place of the end of the thought; None where there is no such end, or no room."""
        size, before = len(partial.response.tokens), partial.response.text.find(END)
        if partial.response.stop or before < 0:
            return None
        while len(writer.truncate(partial.response, size).text) > before:
            size -= 1
        longer = writer.insert(replace(partial, response=writer.truncate(partial.response, size)), self.word)
        return None if longer.response.stop or len(longer.response.tokens) >= self.budget else longer

    def _truncated(self, writer: Writer, partial: Partial) -> Partial:
        """With the end of the thought, where it is open and at the budget."""
        text = partial.response.text
        opened = BEGIN in text or writer.text(partial.prompt.tokens).rstrip().endswith(BEGIN)
        return partial if partial.response.stop or END in text or not opened else writer.insert(partial, END)


METHODS = (
    MethodSpec("extend", "a thought that is extended N times", make=lambda n, _: Budget(extensions=n), unit="extensions", least=1, most=4),
    MethodSpec("truncate", "a thought of at most N tokens", make=lambda n, _: Budget(n), unit="tokens", least=4),
)
