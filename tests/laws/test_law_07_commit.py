"""Law 7: checkpoint N holds exactly N updates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import torch
from safetensors.torch import load_file

from ikusei.run.folder import Run, checkpoints

NOTHING = "rewards=[{path: exact}]"  # a model that knows nothing earns nothing: without a KL term every group is skipped
SHORT = ("eval.num_prompts=0", "train.prompts_per_step=2", "train.refill_rounds=0")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_runs.write_recipe(tmp_path_factory.mktemp("commit"))


def saved(folder: Path) -> dict[int, dict[str, Any]]:
    """trainer.pt of each checkpoint, by its step."""
    return {step: torch.load(path / "trainer.pt", weights_only=True) for step, path in checkpoints(folder)}


def test_version_and_weights(recipe: Path, tmp_path: Path) -> None:
    """Five steps, saved after each second and the last; three steps end with what checkpoint 3 would hold."""
    tiny_runs.run_here(recipe, tmp_path / "five", *SHORT, "train.steps=5", "train.save_every=4")
    assert {step: trainer["version"] for step, trainer in saved(tmp_path / "five").items()} == {4: 4, 5: 5}
    tiny_runs.run_here(recipe, tmp_path / "four", *SHORT, "train.steps=4")
    four, five, other = (
        load_file(tmp_path / path / "model.safetensors") for path in ("five/checkpoint-4", "five/checkpoint-5", "four/final")
    )
    assert all((four[name] == other[name]).all() for name in four)
    assert any((four[name] != five[name]).any() for name in four)
    final = load_file(tmp_path / "five" / "final" / "model.safetensors")
    assert all((five[name] == final[name]).all() for name in five)


def test_the_optimiser_has_made_as_many(recipe: Path, tmp_path: Path) -> None:
    tiny_runs.run_here(recipe, tmp_path / "run", *SHORT, "train.steps=3", "train.save_every=2")
    for step, trainer in saved(tmp_path / "run").items():
        counted = {int(moments["step"]) for moments in trainer["optimizer"]["state"].values()}
        assert counted == {step}


def test_steps_that_teach_nothing_count(recipe: Path, tmp_path: Path) -> None:
    """Every group is skipped, and still each step is an update."""
    tiny_runs.run_here(recipe, tmp_path / "run", *SHORT, NOTHING, "algorithm.kl_coef=0", "train.steps=3", "train.save_every=2")
    assert {row["groups/kept"] for row in tiny_runs.metrics(tmp_path / "run")} == {0.0}
    assert {step: trainer["version"] for step, trainer in saved(tmp_path / "run").items()} == {2: 2, 3: 3}


def test_several_updates_a_step_are_all_in(recipe: Path, tmp_path: Path) -> None:
    tiny_runs.run_here(recipe, tmp_path / "run", *SHORT, "train.updates_per_step=3", "train.steps=2", "train.save_every=1")
    assert {step: trainer["version"] for step, trainer in saved(tmp_path / "run").items()} == {1: 3, 2: 6}
    found = Run(tmp_path / "run", 0.0).latest_checkpoint()
    assert found is not None
    assert found[0] == 2
