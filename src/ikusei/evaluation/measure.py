"""`ikusei eval`: the evaluation that a run makes before training, of any model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ikusei.loops.few_shot import evaluate_with_shots
from ikusei.loops.steps import RewardsFailed
from ikusei.recipe.build import build
from ikusei.recipe.find import find_recipe
from ikusei.recipe.schema import read_recipe
from ikusei.recipe.stages import has_stages
from ikusei.report.evaluation import write_evaluation
from ikusei.run.files import plain
from ikusei.run.find import find_model
from ikusei.run.read import evaluation


def measure(recipe: Path, overrides: Sequence[str], page: Path | None = None) -> dict[str, Any]:
    """Evaluate the recipe's model, as a run does before training. A run folder stands for the model that it trained. `page` is an HTML
    file to write, with charts."""
    recipe = find_recipe(recipe)
    if has_stages(recipe):
        raise ValueError(f"{recipe}: a recipe of stages; eval measures one model: give a recipe of one stage, with model=runs/<this run>")
    read = read_recipe(recipe, overrides)
    components = build(replace(read, model=find_model(read.model)) if isinstance(read.model, str) else read)
    if not components.rewards or read.eval.num_prompts == 0:
        raise ValueError(
            f"{recipe}: nothing to measure: {len(components.rewards)} rewards, eval.num_prompts {read.eval.num_prompts}; give both"
        )
    with components.workers() as workers:
        try:
            made = evaluate_with_shots(components.policy.snapshot(), components.eval_rows, workers, read.eval, read.sampling, read.seed)
        except RewardsFailed as error:
            raise ValueError(str(error)) from error
    if page is not None:
        write_evaluation(evaluation(str(read.model), 0, plain(made.results), made.rows), str(read.model), page)
    return plain(made.results)
