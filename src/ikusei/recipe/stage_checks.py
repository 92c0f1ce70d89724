"""What is checked of a stage before earlier stages have run: a list of named checks, each of which raises ValueError.

What a reference to an earlier stage stands for (`stage:NAME`) is not there yet, so checks leave it out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ikusei.guard.workers import RewardWorkers
from ikusei.models.learned_reward import LearnedReward
from ikusei.models.load import check_kind, context_named, load_tokenizer
from ikusei.recipe.reader import RecipeError
from ikusei.recipe.rows import held_out_rows, replayed_rows, train_rows
from ikusei.recipe.schema import Recipe
from ikusei.recipe.stages import REF, Stage, references
from ikusei.recipe.validate import validate

StageCheck = Callable[[Stage, Recipe, Sequence[Stage]], None]  # the stage, its recipe, all stages


def check_stage(stage: Stage, stages: Sequence[Stage]) -> None:
    """Runs every check. Raises ValueError, with the name of the stage, where one fails."""
    try:
        recipe = stage.recipe()
        for check in CHECKS:
            check(stage, recipe, stages)
    except RecipeError:
        raise
    except ValueError as error:
        raise ValueError(f"stage {stage.name}: {error}") from error


def recipe_is_valid(stage: Stage, recipe: Recipe, stages: Sequence[Stage]) -> None:
    validate(recipe)


def reward_models_are_there(stage: Stage, recipe: Recipe, stages: Sequence[Stage]) -> None:
    for model in list(_judging_models(recipe)):
        if not model.startswith(REF):
            check_kind(model, reward=True)


def language_model_is_there(stage: Stage, recipe: Recipe, stages: Sequence[Stage]) -> None:
    if isinstance(recipe.model, str) and not recipe.model.startswith(REF) and "reward" not in recipe.needs:
        check_kind(recipe.model, reward=False)


def weights_are_rounded_once(stage: Stage, recipe: Recipe, stages: Sequence[Stage]) -> None:
    before = next((each.recipe() for each in stages if recipe.model == REF + each.name), None)
    if before is not None and all(each.policy.lora and each.policy.lora.bits for each in (before, recipe)):
        raise ValueError(
            "policy.lora.bits: the stage that it begins from has adapters beside 4 bits too, and rounding what that leaves would lose "
            "what they learned; leave bits out of one of them"
        )


def rows_fit(stage: Stage, recipe: Recipe, stages: Sequence[Stage]) -> None:
    """The rows that are there already, with the tokenizer of the model that the stages start from."""
    data = stage.document.data
    task_waits, replay_waits = _refers(data.get("task")), _refers(data.get("replay_task"))
    origin = _origin(recipe, stages)
    if origin is None:  # that model is made on the way, and its tokenizer with it: the rows are only read
        if not task_waits:
            recipe.task.num_rows("train")
        if not replay_waits and recipe.replay_task:
            recipe.replay_task.num_rows("train")
        return
    tokenizer, context = load_tokenizer(origin), context_named(origin)
    if not task_waits:
        train_rows(recipe, tokenizer, context)
    if not _refers(data.get("eval_task", data.get("task"))):
        held_out_rows(recipe, tokenizer, context)
    if not replay_waits:
        replayed_rows(recipe, tokenizer, context)


def rewards_can_be_loaded(stage: Stage, recipe: Recipe, stages: Sequence[Stage]) -> None:
    specs = [spec for spec in recipe.reward_specs if not spec.learned]
    if specs:
        with RewardWorkers(specs):
            pass


CHECKS: tuple[StageCheck, ...] = (
    recipe_is_valid,
    reward_models_are_there,
    language_model_is_there,
    weights_are_rounded_once,
    rows_fit,
    rewards_can_be_loaded,
)


def _judging_models(recipe: Recipe) -> Iterator[str]:
    """Reward models that the recipe names: as rewards, and as the critic."""
    for spec in recipe.reward_specs:
        if spec.learned:
            yield from LearnedReward.read(spec.name, spec.settings).models
    if "value" in recipe.needs and recipe.policy.critic not in ("head", "separate"):
        yield recipe.policy.critic


def _origin(recipe: Recipe, stages: Sequence[Stage]) -> str | None:
    """The model that the stages before this one start from; None where it is made from a configuration."""
    model = recipe.model
    while isinstance(model, str) and model.startswith(REF):
        model = next(stage.recipe().model for stage in stages if stage.name == model.removeprefix(REF))
    return model if isinstance(model, str) else None


def _refers(section: object) -> bool:
    """Whether a section names an earlier stage."""
    return any(True for _ in references(section, ()))
