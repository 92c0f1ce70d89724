"""Which rows of a task a step takes. They depend on (seed, step, round) alone, so resuming needs no state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from transformers import PreTrainedTokenizerBase

from ikusei.protocols import Task
from ikusei.text.chat import continuation, render
from ikusei.types import Group, Prompt, Response, Split

CHECKED = 5_000  # rows checked before training starts; later rows are checked when they are used
LOOKED_AT = 20  # test rows read at most for each distinct prompt wanted
ROUND = 1_000_000_000  # of a generator without end, each refill round reads rows from its own offset


@dataclass(frozen=True)
class Rows:
    """A task's rows, tokenized, as prompts or as groups with responses. Training rows are reshuffled each epoch unless `in_order`. `cut_at`
    is the most tokens of a prompt with one response; longer responses are truncated there. None: nothing is truncated."""

    task: Task
    tokenizer: PreTrainedTokenizerBase
    seed: int
    context: int = 1 << 30  # tokens
    in_order: bool = False
    cut_at: int | None = None

    def prompts(self, step: int, count: int, round: int = 0) -> list[Prompt]:
        """`count` training prompts for this step; each refill round of a step gets other ones."""
        return self.prompts_from(step * count, count, round)

    def prompts_from(self, begin: int, count: int, round: int = 0) -> list[Prompt]:
        """`count` training prompts from position `begin` of the seed's shuffled order."""
        return [self.prompt("train", self._index(begin + i, round)) for i in range(count)]

    def held_out(self, count: int) -> list[Prompt]:
        """The first `count` distinct test prompts, or as many as there are."""
        return list(self.held_out_at(count).values())

    def held_out_at(self, count: int) -> dict[int, Prompt]:
        """The same, by row number. A row that repeats a prompt is skipped: counted as a second prompt it would make intervals too
        narrow."""
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
        """Each training row that occurs among the first `count` rows of training, once."""
        rows = self.task.num_rows("train")
        return (self.example("train", self._index(i, 0)) for i in range(count if rows is None else min(rows, count)))

    def prompt(self, split: Split, index: int) -> Prompt:
        """Raises ValueError where the prompt and one more token do not fit the context."""
        prompt = render(self.tokenizer, self.task.row(split, index))
        self._fits(split, index, len(prompt.tokens) + 1, prompt.text)
        return prompt

    def example(self, split: Split, index: int) -> Group:
        """Raises ValueError where the row has no response, or does not fit the context."""
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
        """Checks the first rows of a finite task, so that a row that does not fit is reported before training. Returns the lengths in
        tokens of the longest prompt and of the longest response."""
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
        """Raises ValueError where two responses of a pair are identical."""
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
