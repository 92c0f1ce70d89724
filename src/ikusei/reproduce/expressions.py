"""Expressions of three digits, which several claims are tried on: a tiny model that is shown right answers, and then rewarded for them.

A base that was shown a few hundred steps is right once in ten tries, and in most prompts once in a hundred.
"""

from __future__ import annotations

import itertools
import string
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from ikusei.reproduce.measuring import tiny_llama
from ikusei.reproduce.workspace import Workspace
from ikusei.tasks import generator, split_of
from ikusei.types import Example, Split

OPERATIONS = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
BASE_STEPS = 300
ROWS = 10**6  # of a seed
LATER = 10**6  # no checkpoints
TASK = "ikusei.reproduce.expressions:Expressions"
SAMPLING: dict[str, Any] = {"max_tokens": 5}
UNWATCHED = {"rewards": ["exact"], "sampling": SAMPLING, "eval": {"num_prompts": 0}, "watch": {"gold_every": 0}}
MODEL = tiny_llama(96, 288, 3, 32)


@dataclass(frozen=True)
class Expressions:
    """`3+8*2=`, answer `19`: three numbers of one digit, two of + - *. With `shown`, rows have the answer to learn from. `start` is the
    first training row: each seed has its own."""

    shown: bool = False
    start: int = 0

    rewards: ClassVar[tuple[str, ...]] = ("exact",)

    def num_rows(self, split: Split) -> int | None:
        return len(questions("test")) if split == "test" else None

    def row(self, split: Split, index: int) -> Example:
        every = questions(split)
        question = every[index] if split == "test" else generator("expressions", index + self.start).choice(every)
        answer = str(worth(*question[:-1]))
        return Example(question, (answer,) if self.shown else (), {"answer": answer})


@cache
def questions(split: Split) -> tuple[str, ...]:
    """All of a split, in an order by chance."""
    digits, signs = string.digits, "".join(OPERATIONS)
    every = [f"{''.join(each)}=" for each in itertools.product(digits, signs, digits, signs, digits)]
    mine = [question for question in every if split_of(question) == split]
    generator("expressions", split).shuffle(mine)
    return tuple(mine)


def worth(a: str, first: str, b: str, second: str, c: str) -> int:
    """Products go before sums."""
    one, other = OPERATIONS[first], OPERATIONS[second]
    return one(int(a), other(int(b), int(c))) if second == "*" and first != "*" else other(one(int(a), int(b)), int(c))


def shown(workspace: Workspace, steps: int, model: Any = MODEL, start: int = 0) -> dict[str, Any]:
    """A recipe: so many steps of 64 right answers, from row `start` on."""
    train = {"steps": steps, "examples_per_step": 64, "lr": 1e-3, "warmup_steps": 20, "lr_shape": "constant", "save_every": LATER}
    task = {"name": TASK, "shown": True, "start": workspace.seed * ROWS + start}
    return {**UNWATCHED, "model": model, "task": task, "algorithm": "lm", "train": train}


def rewarded(workspace: Workspace, model: Any, steps: int, start: int = 0, **train: Any) -> dict[str, Any]:
    """A recipe: so many steps of 32 prompts, 8 answers to each, and the reward alone."""
    train = {"steps": steps, "prompts_per_step": 32, "num_responses": 8, "lr": 2e-4, "save_every": LATER, **train}
    return {
        **UNWATCHED,
        "model": model,
        "task": {"name": TASK, "start": workspace.seed * ROWS + start},
        "algorithm": "dapo",
        "train": train,
    }
