"""Budget forcing: the chain of thought is extended, or truncated.   s1, arXiv:2501.19393

    extend      replaces `</think>` by a word such as "Wait", `extensions` times at most, within the budget
    truncate    inserts `</think>` where the thought reaches `budget` tokens, so that the model has to answer

    <think> 8+6=14 7+5 | </think> | 124 <end>            mask: sampled, inserted, sampled

The budget counts the response's tokens up to the end of the thought, inserted ones included. A response without a thought, or one that ends
inside it, is left unchanged. Without extensions, a response that ends within the budget is the plain sample.

Left out: choosing among answers by the length of their thoughts, which s1 found to be worse.
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
        """Replaces the end of the thought by `word`; None where the thought has not ended, or there is no room."""
        size, before = len(partial.response.tokens), partial.response.text.find(END)
        if partial.response.stop or before < 0:
            return None
        while len(writer.truncate(partial.response, size).text) > before:
            size -= 1
        longer = writer.insert(replace(partial, response=writer.truncate(partial.response, size)), self.word)
        return None if longer.response.stop or len(longer.response.tokens) >= self.budget else longer

    def _truncated(self, writer: Writer, partial: Partial) -> Partial:
        """Inserts the end of the thought, where the thought is open."""
        text = partial.response.text
        opened = BEGIN in text or writer.text(partial.prompt.tokens).rstrip().endswith(BEGIN)
        return partial if partial.response.stop or END in text or not opened else writer.insert(partial, END)


METHODS = (
    MethodSpec(
        "extend", "the chain of thought, extended N times", make=lambda n, _: Budget(extensions=n), unit="extensions", least=1, most=4
    ),
    MethodSpec("truncate", "the chain of thought, of at most N tokens", make=lambda n, _: Budget(n), unit="tokens", least=4),
)
