"""The rows that a recipe trains on, is evaluated on and replays. What is wrong with them is reported here, before training.

These checks need a tokenizer and the model's context length, but no weights: so a later stage's rows are checked before the first stage.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from ikusei.loops import few_shot
from ikusei.loops.data import Rows
from ikusei.protocols import Task
from ikusei.recipe.schema import Recipe
from ikusei.recipe.validate import NO_GOLD
from ikusei.tasks.columns import lacking
from ikusei.tasks.files import Files
from ikusei.types import Example, Group, Prompt, Response

MEANINGFUL = frozenset(
    {"text", "messages", "completion", "response", "chosen", "rejected", "responses", "ranking", "label", "weight", "margin"}
)  # columns that say what a row is for
FIRST = 64  # rows that tell of what kind all are


def train_rows(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, context: int) -> Rows:
    """The rows to train on. Raises ValueError where they do not fit the context, or the algorithm does not learn from their kind."""
    samples, train, num_rows = recipe.loop.samples, recipe.train, recipe.task.num_rows("train")
    rows = Rows(recipe.task, tokenizer, recipe.seed, context, *(() if samples else (train.in_order, train.cut_at)))
    if num_rows is None and not samples and train.filtered:
        raise ValueError("train.filtered: it looks at every row before each epoch, and the rows of this task have no end; take a file")
    if num_rows == 0:
        raise ValueError("task: it has no training row; give it more rows or a smaller test_share")
    if not samples:
        _must_teach(recipe, rows)
    if recipe.collect is not None:
        must_be_collectable(recipe, recipe.collect.num_prompts)
    prompt, response = rows.check(with_responses=not samples)
    if "mismatched" in recipe.needs and prompt + response > context:
        raise ValueError(
            f"task: the longest prompt has {prompt} tokens, the longest response {response}, and the context holds {context}; the "
            "algorithm reads responses after prompts of other rows, so any two must fit; shorten them, or take a longer context"
        )
    return rows


def held_out_rows(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, context: int) -> Rows:
    """The rows to evaluate on. Raises ValueError where they do not fit the context, also with few-shot examples in the prompt, and where
    the run stops by them but there are none."""
    rows = Rows(recipe.eval_task, tokenizer, recipe.seed, context)
    rows.held_out(recipe.eval.num_prompts)
    sampled = recipe.reward_specs and "reward" not in recipe.needs
    for shots in (0, *recipe.eval.shots) if sampled else ():
        few_shot.held_out(rows, recipe.eval.num_prompts, shots, recipe.eval.form)
    if recipe.watch.action == "stop_at_best_gold" and recipe.eval_task.num_rows("test") == 0:
        raise ValueError(NO_GOLD)
    return rows


def replayed_rows(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, context: int) -> Rows | None:
    """The rows to replay, if any. Raises ValueError where one has nothing to learn from."""
    if recipe.replay_task is None:
        return None
    rows = Rows(recipe.replay_task, tokenizer, recipe.seed, context)
    try:
        rows.check(with_responses=True)
    except ValueError as error:
        raise ValueError(f"replay_task: {error}") from error
    return rows


def texts_of(task: Task) -> Iterator[str]:
    """All texts of a task's training rows, for a tokenizer that is trained on them."""
    for index in range(task.num_rows("train") or 1_000_000):
        example = task.row("train", index)
        turns = [example.prompt or "", *example.responses]
        yield "\n".join(text for each in turns for text in ([each] if isinstance(each, str) else [turn["content"] for turn in each]))


def must_be_collectable(recipe: Recipe, num_prompts: int) -> None:
    """Raises ValueError where a prompt would be sampled twice, or one of its columns would change what the collected rows mean."""
    rows = recipe.task.num_rows("train")
    if rows is not None and rows < num_prompts:
        raise ValueError(f"collect.num_prompts: {num_prompts}, and the task has {rows} training rows; allowed: each prompt once")
    columns = recipe.task.row("train", 0).columns
    taken = sorted(columns.keys() & MEANINGFUL)
    if taken:
        raise ValueError(
            f"task: its column {taken[0]!r} would change what the collected rows mean; rename it: columns: {{other: {taken[0]}}}"
        )
    try:
        json.dumps(dict(columns))
    except TypeError as error:
        raise ValueError(f"task: its columns {', '.join(columns)} cannot be written as JSON: {error}; collected rows keep them") from error


def _must_teach(recipe: Recipe, rows: Rows) -> None:
    """Raises ValueError where the first rows hold nothing that the algorithm learns from: they are of another kind."""
    count = min(FIRST, recipe.task.num_rows("train") or FIRST)
    first = [recipe.task.row("train", index) for index in range(count)]
    if any(row.responses for row in first) and any(recipe.algorithm.keep(rows.example("train", index)) for index in range(count)):
        return
    given, wanted = _columns_of(first[0]), _columns_for(recipe.algorithm)
    missing = [name for name in wanted if name not in given]
    where = f"{recipe.task.path}: read as {recipe.task.shape}" if isinstance(recipe.task, Files) else "task"
    needs = f"{type(recipe.algorithm).__name__} needs {', '.join(wanted)}"
    raise ValueError(f"{where}: {lacking(given, missing, needs)}")


def _columns_of(row: Example) -> list[str]:
    """The columns that a row was read from, by our names."""
    several = ["chosen", "rejected"] if len(row.responses) == 2 else ["responses", "ranking"]
    responses = [] if not row.responses else ["completion"] if row.tiers is None else several
    return [*([] if row.prompt is None else ["prompt"]), *responses, *(["label"] if row.labels else []), *row.columns]


def _columns_for(algorithm: Any) -> tuple[str, ...]:
    """The columns of the simplest rows that an algorithm learns from."""
    answer = Response((0,), (True,), "")
    kinds = {
        ("prompt", "completion"): Group(Prompt("", (0,), ""), (answer,)),
        ("prompt", "completion", "label"): Group(Prompt("", (0,), ""), (replace(answer, label=1.0),)),
        ("prompt", "chosen", "rejected"): Group(Prompt("", (0,), ""), (answer, answer), tiers=(0, 1)),
    }
    return next((columns for columns, group in kinds.items() if algorithm.keep(group)), ("prompt", "responses", "ranking"))
