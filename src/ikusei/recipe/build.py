"""What a recipe's words stand for, loaded: the policy, the rows, the rewards. Everything that can be wrong with them is told here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from ikusei.backends.local import LocalPolicy
from ikusei.guard.outcomes import RewardSpec
from ikusei.guard.workers import RewardWorkers
from ikusei.loops import few_shot
from ikusei.loops.data import Rows
from ikusei.loops.supervised import SupervisedSettings
from ikusei.models.body import num_words
from ikusei.models.learned_reward import Judge, LearnedReward
from ikusei.models.load import load_model, load_reward_model, load_tokenizer
from ikusei.models.make import MakeModel, make_model, make_tokenizer
from ikusei.protocols import Task
from ikusei.recipe.schema import Recipe
from ikusei.tasks.columns import lacking
from ikusei.tasks.files import Files
from ikusei.types import Example, Group, Prompt, Response, Score

TASK = ("num_rows", "row", "rewards")  # what a user's own class must have
MEMBERS = {"task": TASK, "eval_task": TASK, "replay_task": TASK, "algorithm": ("needs", "start", "keep", "credit", "loss", "advance")}
NEEDS = frozenset({"old", "reference", "value", "mismatched", "reward", "tiers"})
ONLINE_ONLY, SUPERVISED_ONLY = frozenset({"old", "tiers"}), frozenset({"reward"})
MEANINGFUL = frozenset(
    {"text", "messages", "completion", "response", "chosen", "rejected", "responses", "ranking", "label", "weight", "margin"}
)  # columns that say what a row is for
NO_GOLD = (
    "watch.action: got stop_at_best_gold, and there is no gold to measure; allowed: where answers are sampled, with a reward that is "
    "marked gold: true, eval.num_prompts above 0 and rows that are held out"
)
LEARNED = "learned"  # the path of a reward that is a reward model
FIRST = 64  # rows that tell of what kind all are


@dataclass(frozen=True)
class Parts:
    """A recipe, loaded. `replay_rows` are those of the task whose rows are replayed, where there is one."""

    policy: LocalPolicy
    rows: Rows
    eval_rows: Rows
    replay_rows: Rows | None
    rewards: tuple[RewardSpec, ...]
    judges: dict[str, Judge]

    @property
    def facts(self) -> dict[str, Any]:
        causal = self.policy.causal
        parameters = causal.model.num_parameters()  # of weights, however few bytes they take
        return {"threads": self.policy.threads, "layout": causal.layout, "precision": causal.precision, "parameters": parameters}

    def workers(self, log: Path | None = None) -> RewardWorkers:
        """The rewards, ready to be entered."""
        return RewardWorkers(self.rewards, log=log, judges=self.judges)


def build(recipe: Recipe) -> Parts:
    """Load the model, the rows and the rewards. Raises ValueError where one of them is not right."""
    for section, members in MEMBERS.items():
        given = getattr(recipe, section)
        missing = [member for member in members if member not in dir(given)] if given is not None else []
        if missing:
            raise ValueError(f"{section}: the class has no {', '.join(missing)}; it must have {', '.join(members)} (ikusei.protocols)")
    needs = needs_of(recipe)
    fits_together(recipe, needs)
    policy = load_policy(recipe, needs)
    tokenizer, context = policy.tokenizer, policy.causal.context
    rows, eval_rows = train_rows(recipe, tokenizer, context), held_out_rows(recipe, tokenizer, context)
    if recipe.watch.action == "stop_at_best_gold" and recipe.eval_task.num_rows("test") == 0:
        raise ValueError(NO_GOLD)
    replay_rows = replayed_rows(recipe, tokenizer, context)
    rewards = rewards_of(recipe)
    judges = {
        spec.name: Judge(spec.name, LearnedReward.read(spec.name, spec.settings), tokenizer) for spec in rewards if spec.path == LEARNED
    }
    return Parts(policy, rows, eval_rows, replay_rows, rewards, judges)


def fits_together(recipe: Recipe, needs: frozenset[str]) -> None:
    """Raises ValueError where one part of a recipe lacks another, or cannot do with it."""
    supervised, train = isinstance(recipe.train, SupervisedSettings), recipe.train
    filtered = supervised and train.filtered
    rewards = rewards_of(recipe)
    if rewards and (filtered or not supervised) and all(spec.gate or spec.gold for spec in rewards):
        raise ValueError(
            f"rewards: got {[spec.name for spec in rewards]}, each a gate or gold; allowed: at least one that is added up; "
            "there is nothing to learn from"
        )
    for_people = recipe.collect is not None and recipe.collect.kind == "answers"
    if not rewards and (filtered or not supervised) and not for_people:
        why = "train.filtered compares answers by them" if filtered else "answers are compared and learned from by them"
        raise ValueError(f"rewards: none given, and the task brings none; {why}; name at least one, for example rewards: [exact]")
    if "reward" in needs and (filtered or train.replay.examples):
        raise ValueError("train.filtered and train.replay: for language models, and this algorithm trains a reward model; drop them")
    if recipe.policy.lora and recipe.train is not None and train.reference.every and train.reference.mix != 1:
        raise ValueError(
            f"train.reference.mix: got {train.reference.mix} with policy.lora; allowed: 1; a mixture of two adapters' factors "
            "is none of their products"
        )
    if not supervised and recipe.train is not None:
        _can_compare(recipe)
    if recipe.watch.action == "stop_at_best_gold" and (
        supervised or recipe.eval.num_prompts == 0 or not any(spec.gold for spec in rewards)
    ):
        raise ValueError(NO_GOLD)
    if "mismatched" in needs and train.examples_per_step < 2:
        raise ValueError("train.examples_per_step: got 1; KTO compares each answer with another row's prompt; allowed: 2 or more")
    if train is not None and train.replay.examples > 0 and recipe.replay_task is None:
        raise ValueError(
            f"got train.replay.examples={train.replay.examples} and no replay_task; allowed: both, or the task alone, which is then only "
            "measured; for example replay_task: nursery with train: {replay: {examples: 4, weight: 0.1}}"
        )


def _can_compare(recipe: Recipe) -> None:
    """Raises ValueError where the algorithm can do nothing with groups of this size, or nothing with weights of stale samples."""
    count = recipe.train.num_responses
    answers = tuple(Response((0,), (True,), "", score=Score(float(i))) for i in range(count))
    if not recipe.algorithm.keep(Group(Prompt("", (0,), ""), answers, tiers=tuple(range(count)))):
        raise ValueError(f"train.num_responses: got {count}; the algorithm compares answers to one prompt; allowed: 2 or more, 8 is usual")
    if recipe.train.importance_cap is not None and "tiers" in recipe.algorithm.needs:
        raise ValueError("train.importance_cap: weighs tokens, and this algorithm learns from pairs; leave it out")


def train_rows(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, context: int) -> Rows:
    """The rows to learn from. Raises ValueError where they do not fit the context or are not what the algorithm learns from."""
    supervised = isinstance(recipe.train, SupervisedSettings)
    cut_at, in_order = (recipe.train.cut_at, recipe.train.in_order) if supervised else (None, False)
    rows = Rows(recipe.task, tokenizer, recipe.seed, context, in_order, cut_at)
    if recipe.task.num_rows("train") is None and supervised and recipe.train.filtered:
        raise ValueError("train.filtered: it looks at every row before each epoch, and the rows of this task have no end; take a file")
    if recipe.task.num_rows("train") == 0:
        raise ValueError("task: it has no training row; give it more rows or a smaller test_share")
    if supervised:
        _learnable(recipe, rows)
    if recipe.collect is not None:
        collectable(recipe, recipe.collect.num_prompts)
    prompt, response = rows.check(with_responses=supervised)
    if "mismatched" in needs_of(recipe) and prompt + response > context:
        raise ValueError(
            f"task: the longest prompt has {prompt} tokens, the longest response {response}, and the context holds {context}; the "
            "algorithm reads responses after prompts of other rows, so any two must fit; shorten them, or take a longer context"
        )
    return rows


def held_out_rows(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, context: int) -> Rows:
    """The rows to measure on. Raises ValueError where they do not fit the context, also with the examples that are asked for."""
    rows = Rows(recipe.eval_task, tokenizer, recipe.seed, context)
    rows.held_out(recipe.eval.num_prompts)
    sampled = rewards_of(recipe) and "reward" not in needs_of(recipe)
    for shots in (0, *recipe.eval.shots) if sampled else ():
        few_shot.held_out(rows, recipe.eval.num_prompts, shots, recipe.eval.form)
    return rows


def replayed_rows(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, context: int) -> Rows | None:
    """The rows that are replayed, where there are any. Raises ValueError where one has nothing to learn from."""
    if recipe.replay_task is None:
        return None
    rows = Rows(recipe.replay_task, tokenizer, recipe.seed, context)
    try:
        rows.check(with_responses=True)
    except ValueError as error:
        raise ValueError(f"replay_task: {error}") from error
    return rows


def needs_of(recipe: Recipe) -> frozenset[str]:
    """The algorithm's needs. Raises ValueError where the loop that it learns by cannot serve one."""
    if recipe.algorithm is None:
        return frozenset()
    needs, supervised = frozenset(recipe.algorithm.needs), isinstance(recipe.train, SupervisedSettings)
    cannot = needs - NEEDS | needs & (ONLINE_ONLY if supervised else SUPERVISED_ONLY)
    if cannot:
        allowed = ", ".join(sorted(NEEDS - (ONLINE_ONLY if supervised else SUPERVISED_ONLY)))
        raise ValueError(f"algorithm: needs {', '.join(sorted(cannot))}; allowed: {allowed}; the rest goes into credit()")
    json.dumps(dict(recipe.algorithm.start()))  # a state that cannot be saved is told now and not at the first checkpoint
    return needs


def load_policy(recipe: Recipe, needs: frozenset[str]) -> LocalPolicy:
    """The policy behind a recipe's `model`: a language model, or where the algorithm needs one a reward model."""
    bits = recipe.policy.lora.bits if recipe.policy.lora else None
    if isinstance(recipe.model, MakeModel):
        if bits is not None:
            raise ValueError("policy.lora.bits: 4 bits are for a model that is loaded, and this one is made anew; drop it")
        if "reward" in needs:
            raise ValueError("model: made from a configuration, and the algorithm trains a reward model; begin it from a trained model")
        tokenizer = make_tokenizer(recipe.model, _texts(recipe.task))
        return LocalPolicy(make_model(recipe.model, tokenizer, recipe.seed), tokenizer, recipe.policy, needs, recipe.seed)
    tokenizer = load_tokenizer(recipe.model)
    model = load_reward_model(recipe.model, recipe.seed, bits) if "reward" in needs else load_model(recipe.model, bits)
    _fits(recipe.model, tokenizer, num_words(model))
    if "reward" in needs:
        model.config.pad_token_id = tokenizer.pad_token_id  # by which transformers finds the last token of a padded row
    return LocalPolicy(model, tokenizer, recipe.policy, needs, recipe.seed)


def rewards_of(recipe: Recipe) -> tuple[RewardSpec, ...]:
    """The recipe's rewards, else those that the task brings, else those of the task that it is evaluated on."""
    brought = recipe.task.rewards or recipe.eval_task.rewards
    return recipe.rewards or tuple(RewardSpec(path.replace(":", ".").rpartition(".")[2], path) for path in brought)


def _fits(name: str, tokenizer: PreTrainedTokenizerBase, words: int) -> None:
    if len(tokenizer) > words:
        raise ValueError(
            f"model {name!r}: its tokenizer has {len(tokenizer)} tokens and the model reads {words}; they are not of one model: "
            "put the right tokenizer.json and tokenizer_config.json beside its config.json"
        )


def _texts(task: Task) -> Iterator[str]:
    """All texts of a task's training rows, for a tokenizer that is trained on them."""
    for index in range(task.num_rows("train") or 1_000_000):
        example = task.row("train", index)
        said = [example.prompt or "", *example.responses]
        yield "\n".join(text for each in said for text in ([each] if isinstance(each, str) else [turn["content"] for turn in each]))


def _learnable(recipe: Recipe, rows: Rows) -> None:
    """Raises ValueError where the first rows hold nothing that the algorithm learns from: they are of another kind."""
    count = min(FIRST, recipe.task.num_rows("train") or FIRST)
    first = [recipe.task.row("train", index) for index in range(count)]
    if any(row.responses for row in first) and any(recipe.algorithm.keep(rows.example("train", index)) for index in range(count)):
        return
    seen, needed = _columns_of(first[0]), _columns_for(recipe.algorithm)
    missing = [name for name in needed if name not in seen]
    where = f"{recipe.task.path}: read as {recipe.task.shape}" if isinstance(recipe.task, Files) else "task"
    needs = f"{type(recipe.algorithm).__name__} needs {', '.join(needed)}"
    raise ValueError(f"{where}: {lacking(seen, missing, needs)}")


def collectable(recipe: Recipe, num_prompts: int) -> None:
    """Raises ValueError where prompts would be asked twice, or a column of theirs would change what the collected rows mean."""
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


def _columns_of(row: Example) -> list[str]:
    """The columns that a row was read from, by our names."""
    several = ["chosen", "rejected"] if len(row.responses) == 2 else ["responses", "ranking"]
    said = [] if not row.responses else ["completion"] if row.tiers is None else several
    return [*([] if row.prompt is None else ["prompt"]), *said, *(["label"] if row.labels else []), *row.columns]


def _columns_for(algorithm: Any) -> tuple[str, ...]:
    """The columns of the simplest rows that an algorithm learns from."""
    answer = Response((0,), (True,), "")
    kinds = {
        ("prompt", "completion"): Group(Prompt("", (0,), ""), (answer,)),
        ("prompt", "completion", "label"): Group(Prompt("", (0,), ""), (replace(answer, label=1.0),)),
        ("prompt", "chosen", "rejected"): Group(Prompt("", (0,), ""), (answer, answer), tiers=(0, 1)),
    }
    return next((columns for columns, group in kinds.items() if algorithm.keep(group)), ("prompt", "responses", "ranking"))
