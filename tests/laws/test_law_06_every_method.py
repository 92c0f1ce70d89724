"""Law 6, for every method that keeps something of its own: a critic and its moments, a controller, a moving or a stored reference, the rows
that a filter has left, a reward model's scale, collected rows; and for a road, killed in the middle of a stage."""

from __future__ import annotations

import json
import random
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import padded
import pytest
import tiny_runs
import torch
import worlds
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from ikusei.algos.kto import KTO
from ikusei.backends.local import LocalPolicy
from ikusei.loops.reward_scale import mean_and_std
from ikusei.loops.supervised import SupervisedSettings
from ikusei.models.load import load_reward_model
from ikusei.pipeline.training_run import reference_groups
from ikusei.recipe.build import build
from ikusei.recipe.schema import read_recipe
from ikusei.run.files import read_json

OWN = {  # what each keeps that others do not, by a part of its name among what is left
    "dpo, stored reference": "reference",
    "tr-dpo": "reference/model.safetensors",
    "tr-dpo, adapters": "reference/adapter.pt",
    "filtered dpo": "state",
    "kto": "reference/model.safetensors",
    "reward model": "final/config.json",
    "ppo": "trainer.pt/critic/head.weight",
    "ppo, learned reward, separate critic": "trainer.pt/critic/body",
    "grpo, adapters": "trainer.pt/adapter",
    "collecting": "data",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_runs.write_world(tmp_path_factory.mktemp("methods"))


ENDS = [(kind, signal.SIGKILL) for kind in tiny_runs.KINDS] + [(kind, signal.SIGINT) for kind in ("filtered dpo", "kto", "collecting")]


@pytest.mark.parametrize(("kind", "how"), ENDS, ids=[f"{kind}, {how.name}" for kind, how in ENDS])
def test_it_goes_on_bit_equal(kind: str, how: signal.Signals, world: Path) -> None:
    recipe, whole = world / f"{kind}.yaml", world / f"{kind} whole"
    if not whole.exists():  # one for both ways to end
        recipe.write_text(tiny_runs.KINDS[kind])
        assert tiny_runs.run_here(recipe, whole).exit_code == 0
    ended, steps = world / f"{kind} ended by {how}", random.randint(1, 7)
    code = tiny_runs.end_here(recipe, ended, ended, steps, how)
    reached = len(tiny_runs.metrics(ended))
    assert steps <= reached < len(tiny_runs.metrics(whole)), f"exit code {code}"
    assert read_json(ended / "run.json")["status"] == ("interrupted" if how == signal.SIGINT else "running")
    assert tiny_runs.resume_here(ended).exit_code == 0
    mine, theirs = tiny_runs.left(ended), tiny_runs.left(whole)
    assert not tiny_runs.differing(mine, theirs), f"ended by {how} after step {steps}, at {reached}"
    assert any(OWN[kind] in name for name in theirs) and was_at_work(kind, whole, theirs["state"])


def was_at_work(kind: str, whole: Path, state: dict[str, Any]) -> bool:
    """Rows were dropped by the filter, the controller moved, the scale was set: else the comparison was of nothing."""
    if kind == "filtered dpo":
        left = state["algorithm"]["filter"]
        return len(left["rows"]) < max(left["rows"]) + 1 and left["epoch"] > 0
    if kind == "ppo":
        return state["algorithm"]["kl_coef"] != 0.05
    return kind != "reward model" or read_json(whole / "final" / "config.json")["reward_bias"] != 0


def test_a_reward_model_has_its_scale_at_the_end(world: Path) -> None:
    """Mean 0 and spread 1 on what the model that it is made from writes: both the weights that are exported and those that go on."""
    recipe, folder = world / "scaled.yaml", world / "scaled"
    recipe.write_text(tiny_runs.KINDS["reward model"] + "name: scaled\n")
    assert tiny_runs.run_here(recipe, folder).exit_code == 0
    read = read_recipe(folder / "recipe.yaml")
    assert isinstance(read.train, SupervisedSettings)
    parts = build(replace(read, model=str(world / "model")))
    groups = reference_groups(read, parts, read.train.normalise)
    assert mean_and_std(parts.policy, groups, 1000) != pytest.approx((0.0, 1.0), abs=1e-2)
    final = LocalPolicy(load_reward_model(str(folder / "final")), parts.policy.tokenizer, needs=frozenset({"reward"}))
    assert mean_and_std(final, groups, 1000) == pytest.approx((0.0, 1.0), abs=1e-4)


def test_a_reference_that_moves_is_saved_as_it_moved(world: Path) -> None:
    """TR-DPO of two steps, the reference moved after each: what is saved is 0.6 of that step's policy and 0.4 of what it was."""
    recipe, folder = world / "moved.yaml", world / "moved"
    recipe.write_text(tiny_runs.KINDS["tr-dpo"])
    changes = ("train.steps=2", "train.save_every=1", "train.reference.every=1", "train.lr=0.01", "train.lr_shape=constant")
    assert tiny_runs.run_here(recipe, folder, *changes).exit_code == 0
    was = load_file(world / "model" / "model.safetensors")
    for step in (1, 2):
        policy, now = (load_file(folder / f"checkpoint-{step}" / part / "model.safetensors") for part in ("", "reference"))
        for name, weight in now.items():
            torch.testing.assert_close(weight, 0.6 * policy[name] + 0.4 * was[name])
        assert max(float((now[name] - was[name]).abs().max()) for name in now) > 1e-3
        was = now


def test_kto_compares_with_the_row_before(world: Path) -> None:
    """What both steps of a run say is what the padded twin computes from their rows, the policy before them and the reference."""
    recipe, folder = world / "kto once.yaml", world / "kto once"
    weighed = "algorithm: {name: kto, desirable_weight: 9.0, undesirable_weight: 0.1}"  # so that z is above 0 after a step
    recipe.write_text(tiny_runs.KINDS["kto"].replace("algorithm: kto", weighed))
    changes = ("train.steps=2", "train.save_every=1", "train.lr=0.01", "train.lr_shape=constant", "train.reference.every=0")
    assert tiny_runs.run_here(recipe, folder, *changes).exit_code == 0
    rows, metrics = build(read_recipe(folder / "recipe.yaml")).rows, tiny_runs.metrics(folder)
    algorithm = KTO(desirable_weight=9.0, undesirable_weight=0.1)
    reference, *policies = (AutoModelForCausalLM.from_pretrained(world / each) for each in ("model", "model", "kto once/checkpoint-1"))
    for step, policy in enumerate(policies):
        taken = rows.examples(step, 4)
        groups = worlds.with_logprobs(taken, [[0.0] * len(r.tokens) for group in taken for r in group.responses], noise=0.0)
        expected, _ = padded.padded_step(padded.Plain(policy, reference, policy), algorithm, groups, 1.0)
        worlds.assert_metrics({name: metrics[step][name] for name in expected}, expected, relative=1e-4)
    assert metrics[0]["kl"] < 1e-4 < 1e-2 < metrics[1]["kl"]


def test_a_road_killed_in_a_stage(world: Path) -> None:
    """Killed in the second stage, which collects, and in the fourth; the first resume is in a new process, as a person would start it."""
    recipe, whole, ended = world / "road.yaml", world / "road whole", world / "road ended"
    recipe.write_text(tiny_runs.ROAD)
    assert tiny_runs.run_here(recipe, whole).exit_code == 0
    assert tiny_runs.end_here(recipe, ended, ended / "2-ranked", random.randint(1, 8)) == -signal.SIGKILL
    first = (ended / "1-sft" / "final" / "model.safetensors").stat().st_mtime_ns
    assert not (ended / "3-judge").exists()
    again = tiny_runs.start("--resume", str(ended))
    output, _ = again.communicate(timeout=120)
    assert again.returncode == 0, output
    assert (ended / "1-sft" / "final" / "model.safetensors").stat().st_mtime_ns == first, "a finished stage is not done again"
    for stage in ("1-sft", "2-ranked", "3-judge", "4-ppo"):
        mine, theirs = tiny_runs.left(ended / stage), tiny_runs.left(whole / stage)
        assert not [name for name in tiny_runs.differing(mine, theirs) if not name.endswith("config.json")], stage
    assert not tiny_runs.differing(tiny_runs.left(ended), tiny_runs.left(whole))
    assert (ended / "lens.json").read_text() == (whole / "lens.json").read_text()
    assert [row["stage"] for row in json.loads((whole / "lens.json").read_text())][::3] == [str(world / "model"), "sft", "ppo"]
    mine, theirs = (read_json(folder / "summary.json") for folder in (ended, whole))
    assert mine["status"] == "finished" and mine["steps"] == theirs["steps"] == 3 + 16 + 6 + 6
    assert (ended / "report.html").exists()
