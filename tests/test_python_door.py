"""`ikusei.train` from Python: a file, a mapping, a recipe that was read, overrides as texts and as keywords all mean the same run."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

import ikusei
from ikusei.pipeline.outcome import Outcome
from ikusei.pipeline.train import as_overrides
from ikusei.recipe.reader import RecipeError
from ikusei.recipe.schema import read_recipe

SUMS = {
    "model": "seedling",
    "task": {"name": "arithmetic", "digits": 2},
    "algorithm": {"name": "grpo", "clip_high": 0.28},
    "sampling": {"max_tokens": 16},
    "train": {"steps": 2, "prompts_per_step": 2, "num_responses": 4, "lr": 1e-4},
    "eval": {"num_prompts": 0},
}


def steps(outcome: Outcome) -> list[tuple[float, float]]:
    """What was sampled and what was learned from it, step by step."""
    rows = [json.loads(line) for line in (outcome.folder / "metrics.jsonl").read_text().splitlines()]
    return [(row["completions/mean_length"], row["grad_norm"]) for row in rows]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_way_to_say_a_recipe_is_the_same_run(tmp_path: Path) -> None:
    quiet = Console(file=io.StringIO())
    first = ikusei.train(SUMS, "train.steps=3", console=quiet)
    assert first.folder.parent == Path("runs") and first.exit_code == 0 and len(steps(first)) == 3
    again = ikusei.train(SUMS, train={"steps": 3}, folder=tmp_path / "again", console=quiet)
    recipe = read_recipe(first.folder / "recipe.yaml")
    read = ikusei.train(recipe, folder=tmp_path / "read", console=quiet)
    file = ikusei.train(str(first.folder / "recipe.source.yaml"), "train.steps=3", folder=tmp_path / "file", console=quiet)
    assert steps(first) == steps(again) == steps(read) == steps(file)
    assert read_recipe(tmp_path / "read" / "recipe.yaml") == recipe
    other = ikusei.train(SUMS, train={"steps": 3}, seed=1, folder=tmp_path / "other", console=quiet)
    assert steps(other) != steps(first)


def test_a_mapping_changes_the_keys_that_it_names_and_with_a_name_the_section() -> None:
    assert as_overrides({"train": {"steps": 3, "reference": {"every": 2}}, "model": "a b", "seed": 1}) == [
        "train.steps=3", 'train.reference={"every": 2}', 'model="a b"', "seed=1",
    ]  # fmt: skip
    assert as_overrides({"task": {"name": "files", "path": Path("私.jsonl")}}) == ['task={"name": "files", "path": "私.jsonl"}']


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"train": {"stepz": 3}}, "stepz.*did you mean 'steps'"),
        ({"trian": {"steps": 3}}, "trian.*did you mean 'train'"),
        ({"train": {"steps": object()}}, "allowed: numbers, texts"),
        ({"train": {"steps": "3"}}, "train.steps"),
    ],
)
def test_a_mistake_is_told_before_there_is_a_run(given: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        ikusei.train(SUMS, **given)  # pyright: ignore[reportArgumentType]
    assert not Path("runs").exists()


def test_a_mapping_with_mistakes_names_itself() -> None:
    with pytest.raises(RecipeError, match=r"mine.*: algorithm\.name: unknown \(did you mean 'grpo'\?\)"):
        ikusei.train({**SUMS, "name": "mine", "algorithm": "grop"})
