"""`ikusei check RECIPE --write FOLDER`: the files that its verdict recommends, made of the model's own answers to the task's own prompts.

    middle.jsonl          prompts that it answers rightly 20 to 80 % of the time: those that teach most (arXiv:2504.03380)
    right.jsonl           its own right answers, one a prompt, to be fine-tuned on (arXiv:2203.14465)
    pairs.jsonl           for a recipe that learns from pairs: a better and a worse answer of its own to each prompt
    recommended.yaml      the recipe with them: fine-tuning first where it is too hard, then the middle, then the task as it was

Left out: an order of difficulty within the middle; a file of a size below LEAST, which would teach nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from statistics import fmean
from typing import Any

from ikusei.loops.collect import Collect, CollectSettings, row_of
from ikusei.loops.evaluate import judgement
from ikusei.loops.readiness import Verdict
from ikusei.loops.steps import StopAsked
from ikusei.loops.supervised import SupervisedSettings
from ikusei.parts import Parts, build
from ikusei.recipe import Recipe, resolved
from ikusei.recipe_reader import dump_yaml, plain
from ikusei.run.files import append_line, write_text
from ikusei.types import Group

PROMPTS, ANSWERS = 256, 16  # asked, and how many times each
MIDDLE = (0.2, 0.8)
LEAST = 16  # rows
Row = dict[str, Any]


def write(recipe: Recipe, verdict: Verdict | None, folder: Path) -> list[str]:
    """Asks PROMPTS training prompts ANSWERS times and writes the files into a new folder; returns what was written, in words.

    Raises:
        ValueError: the folder exists, or no reward says which answers are right.
    """
    parts = build(recipe)
    if not parts.rewards or recipe.train is None:
        raise ValueError("--write: answers are judged by rewards, and this recipe trains by none; name one, for example rewards: [exact]")
    if folder.exists():
        raise ValueError(f"{folder}: exists, and nothing is overwritten; name a new folder")
    groups = _answered(recipe, parts)
    files = _of_pairs(groups) if isinstance(recipe.train, SupervisedSettings) else _of_prompts(recipe, parts, groups)
    folder.mkdir(parents=True)
    told = []
    for name, (rows, what) in files.items():
        for row in rows:
            append_line(folder / name, row)
        told.append(f"{folder / name}: {len(rows)} {what}, of {len(groups)} prompts")
    enough = {name: folder / name for name, (rows, _) in files.items() if len(rows) >= LEAST}
    stages = _stages(recipe, verdict, enough)
    if not enough or not stages:
        return [*told, f"no recipe: fewer than {LEAST} rows in each; teach it from worked examples first (algorithm: lm)"]
    write_text(folder / "recommended.yaml", dump_yaml(_shared(recipe) | {"stages": stages}))
    return [*told, f"{folder / 'recommended.yaml'}: {' → '.join(stage['name'] for stage in stages)}"]


def _answered(recipe: Recipe, parts: Parts) -> list[Group]:
    """Judged answers to the first prompts, each prompt once."""
    count = min(PROMPTS, recipe.task.num_rows("train") or PROMPTS)
    settings = CollectSettings("answers", count, ANSWERS, prompts_per_step=32)
    with parts.workers() as workers:
        loop = Collect(parts.policy.snapshot(), parts.rows, workers, recipe.sampling, settings, recipe.seed)
        return [group for step in loop.steps(0, StopAsked()) for group in step.groups]


def _of_prompts(recipe: Recipe, parts: Parts, groups: Sequence[Group]) -> dict[str, tuple[list[Row], str]]:
    gold = [spec.name for spec in parts.rewards if spec.gold]
    middle, right = [], []
    for group in groups:
        passed = [(value := judgement(each, gold)) is not None and recipe.eval.passes(value) for each in group.responses]
        asked = {**group.prompt.columns, "prompt": _asked(group)}
        if MIDDLE[0] <= fmean(passed) <= MIDDLE[1]:
            middle.append({**asked, "pass_rate": round(fmean(passed), 4)})
        good = [each for each, yes in zip(group.responses, passed, strict=True) if yes and each.stop != "length"]
        right += [{**asked, "completion": good[0].text}] if good else []
    said = f"prompts that pass {MIDDLE[0]:.0%} to {MIDDLE[1]:.0%} of the time"
    return {"middle.jsonl": (middle, said), "right.jsonl": (right, "right answers of its own")}


def _of_pairs(groups: Sequence[Group]) -> dict[str, tuple[list[Row], str]]:
    settings = CollectSettings("pairs", num_responses=ANSWERS)
    rows = [row for row in (row_of(group, settings) for group in groups) if row is not None]
    return {"pairs.jsonl": (rows, "pairs of its own answers")}


def _asked(group: Group) -> Any:
    asked = group.prompt.asked
    return list(asked) if isinstance(asked, tuple) else asked or group.prompt.text


def _stages(recipe: Recipe, verdict: Verdict | None, files: dict[str, Path]) -> list[Row]:
    """What is done in turn."""
    if "pairs.jsonl" in files:
        return [{"name": "own_pairs", "task": _file(files["pairs.jsonl"])}]
    stages: list[Row] = []
    if verdict is not None and verdict.name == "too hard" and "right.jsonl" in files:
        train = {"steps": 40, "examples_per_step": 16, "lr": recipe.train.lr, "warmup_steps": 4}
        stages.append({"name": "right", "task": _file(files["right.jsonl"]), "algorithm": "lm", "train": train})
    if "middle.jsonl" in files:
        stages.append({"name": "middle", "task": _file(files["middle.jsonl"])})
    return [*stages, {"name": "whole", "task": _named(recipe, "task")}] if stages else []


def _shared(recipe: Recipe) -> Row:
    """What all stages have from the recipe; also its held-out questions."""
    whole = resolved(recipe)
    rewards = [_differing(spec) | {"path": spec.path} for spec in recipe.rewards]
    settings = {name: _differing(getattr(recipe, name)) for name in ("policy", "sampling", "train", "eval", "watch")}
    named = {"eval_task": _named(recipe, "eval_task"), "rewards": rewards, "algorithm": _named(recipe, "algorithm")}
    return {"seed": whole["seed"], "model": whole["model"]} | {name: given for name, given in {**named, **settings}.items() if given}


def _named(recipe: Recipe, section: str) -> Row:
    return {"name": resolved(recipe)[section]["name"], **_differing(getattr(recipe, section))}


def _differing(given: Any) -> Row:
    """What is not as by default."""
    usual = {each.name: each.default for each in fields(given)}
    usual |= {each.name: each.default_factory() for each in fields(given) if each.default_factory is not MISSING}
    return {name: value for name, value in plain(given).items() if value != plain(usual[name])}


def _file(path: Path) -> Row:
    return {"name": "files", "path": path.name, "test_share": 0.0}
