"""Sequential revision: the model sees its last answer in a further turn of the conversation, and answers again.   arXiv:2408.03314

    prompt | answer 1 <end> | <user> look again <end> <assistant> | answer 2 <end> | ...        mask: sampled, inserted, sampled, ...

The result is the last answer, or that of a chooser. The tokens of a response are the whole conversation, so that it can be trained on; its
text is the last turn alone, which a reward reads. Earlier thoughts stay in the context, also where the chat template would drop them.

Left out: a critic of its own between the turns; hints of what is wrong, which would leak the grader.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ikusei.eval_metrics.choosing import Chooser, choose
from ikusei.samplers.continuation import Writer
from ikusei.samplers.partial import Partial, after
from ikusei.search.method import Guide, MethodSpec, Result
from ikusei.types import Group, Message, Prompt, content_id

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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

    def run(self, writer: Writer, prompts: Sequence[Prompt], guide: Guide | None = None) -> list[Result]:
        """Raises ValueError where there is no chat template. A prompt whose context is full keeps its last answer."""
        turn, num_end = further_turn(writer.tokenizer, self.words)
        first = writer.write([Partial(prompt) for prompt in prompts])
        answers = [[partial.response] for (partial,) in first]
        num_tokens = [partial.written for (partial,) in first]
        for _ in range(self.n - 1):
            given = [turn[num_end:] if row[-1].stop == "eos" else turn for row in answers]
            extended = [_extended(prompt, row[-1].tokens + more) for prompt, row, more in zip(prompts, answers, given, strict=True)]
            fitting = [p for p, prompt in enumerate(extended) if len(prompt.tokens) < writer.context]
            if not fitting:
                break
            for p, (partial,) in zip(fitting, writer.write([Partial(extended[p]) for p in fitting]), strict=True):
                answers[p].append(after(answers[p][-1], given[p], partial.response))
                num_tokens[p] += partial.written
        groups = [Group(prompt, tuple(row)) for prompt, row in zip(prompts, answers, strict=True)]
        groups = guide(groups) if guide else groups
        chosen = [choose(self.chooser, group.responses) if self.chooser else group.responses[-1] for group in groups]
        return [Result(one, group.responses, spent) for one, group, spent in zip(chosen, groups, num_tokens, strict=True)]


def _extended(prompt: Prompt, more: tuple[int, ...]) -> Prompt:
    """The prompt, extended by the conversation so far."""
    return replace(prompt, id=content_id(prompt.id, more), tokens=prompt.tokens + more)


def further_turn(tokenizer: PreTrainedTokenizerBase, words: str) -> tuple[tuple[int, ...], int]:
    """The tokens between one answer and the next, and how many of them end the answer (left out where it has ended).

    Raises:
        ValueError: the tokenizer has no chat template.
    """
    from ikusei.text.conversation import encode, rendered, turn  # transformers

    if not tokenizer.chat_template:
        raise ValueError("revision: the tokenizer has no chat template, so there is no further turn; take another method, such as vote")
    messages = [("user", "a question"), ("assistant", ANSWER), ("user", words)]
    text = rendered(tokenizer, [Message(role=role, content=content) for role, content in messages], answer_next=True)
    tokens, end = encode(tokenizer, text.partition(ANSWER)[2]), turn(tokenizer)[1]
    return tokens, tokens.index(end) + 1 if end in tokens else 0


METHODS = (
    MethodSpec("revision", "N answers in turn, each seeing the one before", make=lambda n, _: Revision(n), needs=("turns",), most=4),
)
