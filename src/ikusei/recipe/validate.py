"""Rules that a recipe must satisfy before anything is loaded. Each is a named function that returns what is wrong, or None.

Rules about rows are in rows.py, since they need a tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from ikusei.protocols import first_state
from ikusei.recipe.schema import Recipe
from ikusei.types import Group, Prompt, Response, Score

TASK = ("num_rows", "row", "rewards")  # what a user's own class must have
MEMBERS = {"task": TASK, "eval_task": TASK, "replay_task": TASK, "algorithm": ("needs", "keep", "loss")}
NO_GOLD = (
    "watch.action: got stop_at_best_gold, and there is no gold to measure; allowed: where answers are sampled, with a reward that is "
    "marked gold: true, eval.num_prompts above 0 and rows that are held out"
)
Rule = Callable[[Recipe], str | None]


def validate(recipe: Recipe) -> None:
    """Raises ValueError with everything that is wrong, one line for each problem."""
    problems = [problem for rule in CLASSES if (problem := rule(recipe))]
    problems = problems or [problem for rule in RULES if (problem := rule(recipe))]  # of a class that lacks members nothing can be asked
    if problems:
        raise ValueError("\n".join(problems))


def classes_have_their_members(recipe: Recipe) -> str | None:
    for section, members in MEMBERS.items():
        given = getattr(recipe, section)
        missing = [member for member in members if member not in dir(given)] if given is not None else []
        if missing:
            return f"{section}: the class has no {', '.join(missing)}; it must have {', '.join(members)} (ikusei.protocols)"
    return None


def needs_are_served(recipe: Recipe) -> str | None:
    """By the loop that the algorithm learns by."""
    if recipe.train is None or not recipe.needs - recipe.train.serves:
        return None
    cannot = recipe.needs - recipe.train.serves
    allowed = ", ".join(sorted(recipe.train.serves))
    return f"algorithm: needs {', '.join(sorted(cannot))}; allowed: {allowed}; the rest goes into credit()"


def state_can_be_saved(recipe: Recipe) -> str | None:
    """It goes into checkpoints, in JSON's types."""
    if len({"start", "advance"} & {*dir(recipe.algorithm)}) == 1:
        return "algorithm: has one of start and advance; allowed: both, or neither where it keeps no state (ikusei.protocols)"
    try:
        json.dumps(dict(first_state(recipe.algorithm)) if recipe.algorithm is not None else {})
    except TypeError as error:
        return f"algorithm: start() gives what a checkpoint cannot keep: {error}; allowed: numbers, texts, lists and mappings of them"
    return None


def a_reward_is_named(recipe: Recipe) -> str | None:
    if recipe.reward_specs or not recipe.loop.needs_rewards:
        return None
    why = "answers are compared and learned from by them" if recipe.loop.samples else "train.filtered compares answers by them"
    return f"rewards: none given, and the task brings none; {why}; name at least one, for example rewards: [exact]"


def a_reward_is_added_up(recipe: Recipe) -> str | None:
    specs = recipe.reward_specs
    if not specs or not recipe.loop.needs_rewards or not all(spec.gate or spec.gold for spec in specs):
        return None
    given = [spec.name for spec in specs]
    return f"rewards: got {given}, each a gate or gold; allowed: at least one that is added up; there is nothing to learn from"


def a_reward_model_learns_from_rankings_alone(recipe: Recipe) -> str | None:
    if "reward" not in recipe.needs or recipe.train.samples or not (recipe.train.filtered or recipe.train.replay.examples):
        return None
    return "train.filtered and train.replay: for language models, and this algorithm trains a reward model; drop them"


def a_reference_with_adapters_is_not_mixed(recipe: Recipe) -> str | None:
    train = recipe.train
    if not recipe.policy.lora or train is None or not train.reference.every or train.reference.mix == 1:
        return None
    return (
        f"train.reference.mix: got {train.reference.mix} with policy.lora; allowed: 1; a mixture of two adapters' factors is none of their "
        "products"
    )


def answers_can_be_compared(recipe: Recipe) -> str | None:
    """By the algorithm, in groups of this size."""
    if recipe.train is None or not recipe.train.samples:
        return None
    count = recipe.train.num_responses
    answers = tuple(Response((0,), (True,), "", score=Score(float(i))) for i in range(count))
    if recipe.algorithm.keep(Group(Prompt("", (0,), ""), answers, tiers=tuple(range(count)))):
        return None
    return f"train.num_responses: got {count}; the algorithm compares answers to one prompt; allowed: 2 or more, 8 is usual"


def pairs_are_not_weighted_by_token(recipe: Recipe) -> str | None:
    if recipe.train is None or not recipe.train.samples or recipe.train.importance_cap is None or "tiers" not in recipe.needs:
        return None
    return "train.importance_cap: weighs tokens, and this algorithm learns from pairs; leave it out"


def there_is_gold_to_stop_at(recipe: Recipe) -> str | None:
    if recipe.watch.action != "stop_at_best_gold":
        return None
    samples = recipe.loop.samples and recipe.eval.num_prompts > 0
    return None if samples and recipe.gold else NO_GOLD


def kto_has_another_prompt(recipe: Recipe) -> str | None:
    if "mismatched" not in recipe.needs or recipe.train.samples or recipe.train.examples_per_step >= 2:
        return None
    return "train.examples_per_step: got 1; KTO compares each answer with another row's prompt; allowed: 2 or more"


def replay_has_rows(recipe: Recipe) -> str | None:
    if recipe.train is None or recipe.train.replay.examples == 0 or recipe.replay_task is not None:
        return None
    return (
        f"got train.replay.examples={recipe.train.replay.examples} and no replay_task; allowed: both, or the task alone, which is then "
        "only measured; for example replay_task: nursery with train: {replay: {examples: 4, weight: 0.1}}"
    )


CLASSES: tuple[Rule, ...] = (classes_have_their_members,)
RULES: tuple[Rule, ...] = (
    needs_are_served,
    state_can_be_saved,
    a_reward_is_added_up,
    a_reward_is_named,
    a_reward_model_learns_from_rankings_alone,
    a_reference_with_adapters_is_not_mixed,
    answers_can_be_compared,
    pairs_are_not_weighted_by_token,
    there_is_gold_to_stop_at,
    kto_has_another_prompt,
    replay_has_rows,
)
