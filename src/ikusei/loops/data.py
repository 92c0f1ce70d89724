"""Which rows of a task a step takes. (seed, step, round) says it all, so that resuming needs no state of its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from transformers import PreTrainedTokenizerBase

from ikusei.protocols import Task
from ikusei.text.chat import continuation, render
from ikusei.types import Group, Prompt, Split

CHECKED = 5_000  # rows looked at before the start; later ones are when they are taken
ROUND = 1_000_000_000  # rows without end: each refill round reads from its own far place


@dataclass(frozen=True)
class Rows:
    """A task's rows as prompts and groups of tokens. Training rows are shuffled anew each epoch unless `in_order`."""

    task: Task
    tokenizer: PreTrainedTokenizerBase
    seed: int
    context: int = 1 << 30  # tokens that the model holds
    in_order: bool = False

    def prompts(self, step: int, count: int, round: int = 0) -> list[Prompt]:
        """`count` training prompts for this step; each round of a step has others."""
        return [self.prompt("train", self._index(step * count + i, round)) for i in range(count)]

    def held_out(self, count: int) -> list[Prompt]:
        """The first `count` test prompts, or as many as there are."""
        rows = self.task.num_rows("test")
        return [self.prompt("test", i) for i in range(count if rows is None else min(count, rows))]

    def examples(self, step: int, count: int) -> list[Group]:
        """`count` training rows with their responses, for supervised learning."""
        return [self.example("train", self._index(step * count + i, 0)) for i in range(count)]

    def prompt(self, split: Split, index: int) -> Prompt:
        """Raises ValueError where the model's context has no room for it and one token."""
        prompt = render(self.tokenizer, self.task.row(split, index))
        self._fits(split, index, len(prompt.tokens) + 1, prompt.text)
        return prompt

    def example(self, split: Split, index: int) -> Group:
        """Raises ValueError where the row has nothing to learn from, or does not fit the model's context."""
        row = self.task.row(split, index)
        if not row.responses:
            raise ValueError(f"row {index}: it has a prompt and no response to learn from; name the column that holds the response")
        prompt = render(self.tokenizer, row)
        group = Group(prompt, tuple(continuation(self.tokenizer, prompt, text) for text in row.responses))
        self._fits(split, index, len(prompt.tokens) + max(len(r.tokens) for r in group.responses), prompt.text or row.responses[0])
        return group

    def check(self, with_responses: bool) -> None:
        """Looks at the first rows of a task that has an end, so that what does not fit is told before anything is trained."""
        for index in range(min(self.task.num_rows("train") or 0, CHECKED)):
            _ = self.example("train", index) if with_responses else self.prompt("train", index)

    def _fits(self, split: Split, index: int, size: int, text: str) -> None:
        if size > self.context:
            raise ValueError(
                f"{split} row {index} ({text[:60]!r}): it takes {size} tokens (a prompt with one to answer, or with its response); "
                f"the context holds {self.context}; shorten or remove the row, or take a model with a longer context"
            )

    def _index(self, position: int, round: int) -> int:
        rows = self.task.num_rows("train")
        if rows is None:
            return position + round * ROUND
        if rows == 0:
            raise ValueError("the task has no training row; give it more rows or a smaller test_share")
        epoch, place = divmod(position, rows)
        return place if self.in_order else int(_shuffled(rows, self.seed, round, epoch)[place])


@lru_cache(maxsize=4)
def _shuffled(rows: int, seed: int, round: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, round, epoch]).permutation(rows)
