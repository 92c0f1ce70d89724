"""Which rows of a task a step takes. (seed, step, round) says it all, so that resuming needs no state of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from transformers import PreTrainedTokenizerBase

from ikusei.protocols import Task
from ikusei.text.chat import continuation, render
from ikusei.types import Group, Prompt, Response, Split

CHECKED = 5_000  # rows looked at before the start; later ones are when they are taken
LOOKED_AT = 20  # test rows for each prompt that is wanted, where rows repeat each other
ROUND = 1_000_000_000  # rows without end: each refill round reads from its own far place


@dataclass(frozen=True)
class Rows:
    """A task's rows as prompts and groups of tokens. Training rows are shuffled anew each epoch unless `in_order`. `cut_at` is how many
    tokens a prompt with one response may have: what is longer is cut there, and where it is None nothing is ever cut."""

    task: Task
    tokenizer: PreTrainedTokenizerBase
    seed: int
    context: int = 1 << 30  # tokens that the model holds
    in_order: bool = False
    cut_at: int | None = None

    def prompts(self, step: int, count: int, round: int = 0) -> list[Prompt]:
        """`count` training prompts for this step; each round of a step has others."""
        return self.prompts_from(step * count, count, round)

    def prompts_from(self, begin: int, count: int, round: int = 0) -> list[Prompt]:
        """`count` training prompts from place `begin` of the order that this seed gives them."""
        return [self.prompt("train", self._index(begin + i, round)) for i in range(count)]

    def held_out(self, count: int) -> list[Prompt]:
        """The first `count` test prompts, or as many as there are, each once: see `held_out_at`."""
        return list(self.held_out_at(count).values())

    def held_out_at(self, count: int) -> dict[int, Prompt]:
        """The same by their rows. A row that says nothing new is passed over: it is no second prompt, though an interval would take it for
        one, and a comparison by prompt for a prompt with twice the samples."""
        rows, found = self.task.num_rows("test"), dict[str, tuple[int, Prompt]]()
        for index in range(LOOKED_AT * count if rows is None else min(rows, LOOKED_AT * count)):
            if len(found) == count:
                break
            prompt = self.prompt("test", index)
            found.setdefault(prompt.id, (index, prompt))
        return dict(found.values())

    def examples(self, step: int, count: int) -> list[Group]:
        """`count` training rows with their responses, for supervised learning."""
        return [self.example("train", self._index(step * count + i, 0)) for i in range(count)]

    def used(self, count: int) -> Iterator[Group]:
        """Every training row among the first `count` that steps take, each once."""
        rows = self.task.num_rows("train")
        return (self.example("train", self._index(i, 0)) for i in range(count if rows is None else min(rows, count)))

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
        try:
            responses = [continuation(self.tokenizer, prompt, response) for response in row.responses]
        except ValueError as problem:
            raise ValueError(f"{split} row {index}: {problem}") from problem
        labelled = zip(responses, row.labels or [None] * len(responses), strict=True)
        responses = tuple(replace(self._cut(prompt, response), label=label) for response, label in labelled)
        group = Group(prompt, responses, row.tiers, row.margin, row.weight)
        shown = prompt.text or responses[0].text
        self._fits(split, index, len(prompt.tokens) + max(len(r.tokens) for r in responses), shown)
        self._differ(split, index, group)
        return group

    def held_out_examples(self, count: int) -> list[Group]:
        """The first `count` test rows with their responses; none where the task's test rows have no responses."""
        rows = self.task.num_rows("test")
        count = count if rows is None else min(count, rows)
        return [self.example("test", i) for i in range(count)] if count and self.task.row("test", 0).responses else []

    def check(self, with_responses: bool) -> tuple[int, int]:
        """Looks at the first rows of a task that has an end, so that what does not fit is told before training. Returns the tokens
        of the longest prompt among them, and of the longest response."""
        prompts, responses = [0], [0]
        for index in range(min(self.task.num_rows("train") or 0, CHECKED)):
            group = self.example("train", index) if with_responses else Group(self.prompt("train", index), ())
            prompts.append(len(group.prompt.tokens))
            responses += [len(response.tokens) for response in group.responses]
        return max(prompts), max(responses)

    def _cut(self, prompt: Prompt, response: Response) -> Response:
        if self.cut_at is None or len(prompt.tokens) + len(response.tokens) <= self.cut_at:
            return response
        room = max(self.cut_at - len(prompt.tokens), 0)
        text = str(self.tokenizer.decode(list(response.tokens[:room]), skip_special_tokens=True))
        return replace(response, tokens=response.tokens[:room], mask=response.mask[:room], text=text, stop="length")

    def _differ(self, split: Split, index: int, group: Group) -> None:
        """Raises ValueError where one response is better than another that is the same."""
        alike = [(i, j) for i, j in group.pairs if group.responses[i].tokens == group.responses[j].tokens]
        if not all(response.tokens for response in group.responses):
            raise ValueError(f"{split} row {index}: cut at {self.cut_at} tokens, nothing is left of a response; raise train.cut_at")
        if alike:
            cut = f" once they are cut at {self.cut_at} tokens" if group.responses[alike[0][0]].stop == "length" else ""
            raise ValueError(
                f"{split} row {index} ({group.prompt.text[:60]!r}): responses {alike[0][0]} and {alike[0][1]} are the same{cut}, and one "
                "is said to be better: nothing can be learned from that; remove the row" + (", or raise train.cut_at" if cut else "")
            )

    def _fits(self, split: Split, index: int, size: int, text: str) -> None:
        if size > self.context:
            raise ValueError(
                f"{split} row {index} ({text[:60]!r}): it takes {size} tokens (a prompt with one to answer, or with its response); "
                f"the context holds {self.context}; shorten or remove the row, take a model with a longer context, or cut responses "
                f"with train.cut_at: {self.context}"
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
