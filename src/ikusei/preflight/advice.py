"""`ikusei check RECIPE --write FOLDER`: training data from the model's own answers, and a recipe that uses it.

    middle.jsonl          prompts with a pass rate of 20 to 80 %: the most useful ones (arXiv:2504.03380)
    right.jsonl           its own correct answers, one for each prompt, for SFT (STaR, arXiv:2203.14465)
    pairs.jsonl           instead of both, for preference learning: a chosen and a rejected answer of its own to each prompt
    recommended.yaml      stages: SFT on right.jsonl where the task is too hard, then middle.jsonl, then the whole task

The recipe uses no file of fewer than LEAST rows: too few to learn from. Left out: a curriculum within middle.jsonl.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from statistics import fmean
from typing import Any

from ikusei.loops.collect import Collect, CollectSettings, row_of
from ikusei.loops.evaluate import judgement
from ikusei.loops.steps import StopRequest
from ikusei.preflight.readiness import ReadinessVerdict
from ikusei.recipe.build import Components, build
from ikusei.recipe.reader import dump_yaml, plain
from ikusei.recipe.rows import must_be_collectable
from ikusei.recipe.schema import Recipe, resolved
from ikusei.run.files import whole_folder, write_text
from ikusei.types import Group, Prompt, Response

PROMPTS, ANSWERS = 256, 16  # training prompts sampled, and answers to each
MIDDLE = (0.2, 0.8)
LEAST = 16  # rows of a file that the recipe uses
YamlMapping = dict[str, Any]


def write(recipe: Recipe, verdict: ReadinessVerdict | None, folder: Path) -> list[str]:
    """Samples ANSWERS answers to each of PROMPTS training prompts and writes the files into a new folder; returns what was written.

    Raises:
        ValueError: as `must_be_writable` does.
    """
    must_be_writable(recipe, folder)
    components = build(recipe)
    groups = _answered(recipe, components)
    files = _of_prompts(recipe, components, groups) if _learns_from_answers(recipe) else _of_pairs(groups)
    enough = {name: folder / name for name, (rows, _) in files.items() if len(rows) >= LEAST}
    stages = _stages(recipe, verdict, enough)
    lines = [f"{folder / name}: {len(rows)} {what}, of {len(groups)} prompts" for name, (rows, what) in files.items()]
    with whole_folder(folder) as unfinished:
        for name, (rows, _) in files.items():
            write_text(unfinished / name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        if stages:
            write_text(unfinished / "recommended.yaml", dump_yaml(_shared(recipe, components) | {"stages": stages}))
    if not stages:
        return [*lines, f"no recipe: fewer than {LEAST} rows in each; teach it from worked examples first (algorithm: lm)"]
    return [*lines, f"{folder / 'recommended.yaml'}: {' → '.join(stage['name'] for stage in stages)}"]


def must_be_writable(recipe: Recipe, folder: Path) -> None:
    """Called before anything is sampled: raises ValueError where the files cannot be written."""
    if folder.exists():
        raise ValueError(f"{folder}: exists, and nothing is overwritten; name a new folder")
    if recipe.train is None:
        raise ValueError("--write: needs a recipe that trains, and this one collects; give it an algorithm instead of collect")
    if not recipe.reward_specs:
        raise ValueError("--write: answers are judged by rewards, and this recipe names none; name one, for example rewards: [exact]")
    if "reward" in recipe.needs:
        raise ValueError("--write: is for language models; this algorithm trains a reward model; collect rankings instead (collect: {})")
    must_be_collectable(recipe, 0)


def _learns_from_answers(recipe: Recipe) -> bool:
    """Whether the algorithm learns from on-policy samples or from single answers, not from preference pairs."""
    answer = Response((0,), (True,), "")
    return recipe.train.samples or recipe.algorithm.keep(Group(Prompt("", (0,), ""), (answer,)))


def _answered(recipe: Recipe, components: Components) -> list[Group]:
    """Scored answers to the first prompts, each prompt once."""
    count = min(PROMPTS, recipe.task.num_rows("train") or PROMPTS)
    settings = CollectSettings("answers", count, ANSWERS, prompts_per_step=32)
    with components.workers() as workers:
        loop = Collect(components.policy.snapshot(), components.rows, workers, recipe.sampling, settings, recipe.seed)
        return [group for step in loop.steps(0, StopRequest()) for group in step.groups]


def _of_prompts(recipe: Recipe, components: Components, groups: Sequence[Group]) -> dict[str, tuple[list[YamlMapping], str]]:
    gold = recipe.gold
    middle, right = [], []
    for group in groups:
        passed = [(value := judgement(each, gold)) is not None and recipe.eval.passes(value) for each in group.responses]
        asked = {**group.prompt.columns, "prompt": _asked(group)}
        if MIDDLE[0] <= fmean(passed) <= MIDDLE[1]:
            middle.append({**asked, "pass_rate": round(fmean(passed), 4)})
        good = [each for each, yes in zip(group.responses, passed, strict=True) if yes and each.stop != "length"]
        right += [{**asked, "completion": good[0].text}] if good else []
    what = f"prompts with a pass rate of {MIDDLE[0]:.0%} to {MIDDLE[1]:.0%}"
    return {"middle.jsonl": (middle, what), "right.jsonl": (right, "correct answers of the model")}


def _of_pairs(groups: Sequence[Group]) -> dict[str, tuple[list[YamlMapping], str]]:
    settings = CollectSettings("pairs", num_responses=ANSWERS)
    rows = [row for row in (row_of(group, settings) for group in groups) if row is not None]
    return {"pairs.jsonl": (rows, "preference pairs of the model's answers")}


def _asked(group: Group) -> Any:
    asked = group.prompt.asked
    return list(asked) if isinstance(asked, tuple) else asked or group.prompt.text


def _stages(recipe: Recipe, verdict: ReadinessVerdict | None, files: dict[str, Path]) -> list[YamlMapping]:
    """The stages of the recommended recipe."""
    if "pairs.jsonl" in files:
        return [{"name": "own_pairs", "task": _file(files["pairs.jsonl"])}]
    if not recipe.train.samples:
        return [{"name": "right", "task": _file(files["right.jsonl"])}] if "right.jsonl" in files else []
    stages: list[YamlMapping] = []
    if verdict is not None and verdict.name == "too hard" and "right.jsonl" in files:
        train = {"steps": 40, "examples_per_step": 16, "lr": recipe.train.lr, "warmup_steps": 4}
        stages.append({"name": "right", "task": _file(files["right.jsonl"]), "algorithm": "lm", "train": train})
    if "middle.jsonl" in files:
        stages.append({"name": "middle", "task": _file(files["middle.jsonl"])})
    return [*stages, {"name": "whole", "task": _named(recipe, "task")}] if stages else []


def _shared(recipe: Recipe, components: Components) -> YamlMapping:
    """The recipe's sections that all stages share; `eval_task` keeps its held-out prompts."""
    whole = resolved(recipe)
    rewards = [_differing(spec) | {"path": spec.path} for spec in components.rewards]
    settings = {name: _differing(getattr(recipe, name)) for name in ("policy", "sampling", "train", "eval", "watch")}
    replayed = _named(recipe, "replay_task") if recipe.replay_task is not None else {}
    named = {"eval_task": _named(recipe, "eval_task"), "replay_task": replayed, "rewards": rewards}
    named["algorithm"] = _named(recipe, "algorithm")
    return {"seed": whole["seed"], "model": whole["model"]} | {name: given for name, given in {**named, **settings}.items() if given}


def _named(recipe: Recipe, section: str) -> YamlMapping:
    return {"name": resolved(recipe)[section]["name"], **_differing(getattr(recipe, section))}


def _differing(given: Any) -> YamlMapping:
    """The fields whose values are not the defaults."""
    usual = {each.name: each.default for each in fields(given)}
    usual |= {each.name: each.default_factory() for each in fields(given) if each.default_factory is not MISSING}
    return {name: value for name, value in plain(given).items() if value != plain(usual[name])}


def _file(path: Path) -> YamlMapping:
    return {"name": "files", "path": path.name, "test_share": 0.0}
