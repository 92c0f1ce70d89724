"""The watch and law 6: a run that was paused, or killed after an alarm, goes on as if it had never stopped; and what an alarm leaves."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import tiny_runs
from rich.console import Console
from safetensors.torch import load_file

from ikusei.intervals import Interval
from ikusei.loops.steps import StopRequest
from ikusei.pipeline.gold_watch import GoldWatch
from ikusei.pipeline.outcome import tell
from ikusei.recipe.build import build
from ikusei.recipe.reader import RecipeError
from ikusei.recipe.schema import read_recipe
from ikusei.run.display import Display
from ikusei.run.files import read_json, read_lines
from ikusei.run.folder import Run, checkpoints
from ikusei.run.read import read_evaluation

CHEATED = """
model: model
task: {name: arithmetic, digits: 1}
rewards: ["calm.py:calm", {path: gold.py:gold, gold: true}]
algorithm: grpo
sampling: {max_tokens: 8, stop: ["7", "e", "k", "ま"], stop_ids: [40, 41, 42, 43, 44]}
train: {steps: 30, prompts_per_step: 6, num_responses: 4, lr: 3e-3, save_every: 4}
eval: {num_prompts: 4, num_samples: 2}
watch: {gold_every: 3}
"""
GOLD_REWARD = "def gold(prompt, response, **columns):\n    return 1 - sum(map(ord, response)) % 7 / 7 - 0.6 * response.startswith(' ')\n"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward that is the opposite of the gold, and the run that only warns of it."""
    folder = tiny_runs.write_world(tmp_path_factory.mktemp("watched"))
    (folder / "gold.py").write_text(GOLD_REWARD)
    (folder / "cheated.yaml").write_text(CHEATED)
    assert tiny_runs.run_here(folder / "cheated.yaml", folder / "warned").exit_code == 0
    return folder


def alarms(run: Path) -> list[dict[str, Any]]:
    return [event for event in read_lines(run / "events.jsonl") if event["kind"] == "alarm"]


def test_a_warned_run_goes_on_and_keeps_its_best_checkpoint(world: Path) -> None:
    run = world / "warned"
    raised = alarms(run)
    assert raised[0]["name"] == "gold disagrees" and raised[0]["step"] <= 8
    assert len(raised[0]["samples"]) == 3 and {"prompt", "response", "total", "gold"} == raised[0]["samples"][0].keys()
    assert len({each["name"] for each in raised}) == len(raised), "each once"
    assert len(read_lines(run / "metrics.jsonl")) == 30
    gold = {int(each.name.partition("@")[2]): read_json(each / "results.json")["reward"]["value"] for each in run.glob("eval/gold@*")}
    assert sorted(gold) == list(range(3, 31, 3))
    best = max(sorted(gold), key=gold.__getitem__)
    assert best < 28 and [step for step, _ in checkpoints(run)] == [best, 28, 30], "as often as it is asked for, and the best"
    page = (run / "report.html").read_text()
    assert "Alarms" in page and raised[0]["text"].split(":")[0] in page and "gold, which is not trained on" in page


def test_a_paused_run_goes_on_bit_equal_and_is_not_paused_again(world: Path) -> None:
    outcome = tiny_runs.run_here(world / "cheated.yaml", world / "paused", "watch.action=pause")
    assert outcome.summary["status"] == "paused" and outcome.exit_code == 3
    step = alarms(world / "paused")[0]["step"]
    assert len(read_lines(world / "paused" / "metrics.jsonl")) == step == checkpoints(world / "paused")[-1][0]
    while outcome.exit_code == 3:
        before, outcome = len(alarms(outcome.folder)), tiny_runs.resume_here(outcome.folder)
        assert outcome.exit_code == 0 or len(alarms(outcome.folder)) > before, "paused by a new alarm only"
    mine, theirs = tiny_runs.left(world / "paused"), tiny_runs.left(world / "warned")
    assert not tiny_runs.differing(mine, theirs)
    assert [each["name"] for each in alarms(world / "paused")] == [each["name"] for each in alarms(world / "warned")]


def test_stopping_leaves_the_model_of_the_best_gold(world: Path) -> None:
    outcome = tiny_runs.run_here(world / "cheated.yaml", world / "stopped", "watch.action=stop_at_best_gold")
    run = outcome.folder
    assert outcome.exit_code == 0 and len(read_lines(run / "metrics.jsonl")) == alarms(run)[0]["step"]
    best = outcome.summary["steps"]
    assert (run / "eval" / "gold@0").is_dir(), "the model that it began with may be the best"
    golds = {each.name: read_json(each / "results.json")["reward"]["value"] for each in run.glob("eval/gold@*")}
    assert golds[f"gold@{best}"] == max(golds.values()) and (run / "eval" / f"after@{best}").is_dir()
    final, kept = (load_file(folder / "model.safetensors") for folder in (run / "final", run / f"checkpoint-{best}"))
    assert all((final[name] == kept[name]).all() for name in final)
    told = [event["text"] for event in read_lines(run / "events.jsonl") if event["kind"] == "warning"]
    assert any(f"leaves the model after step {best}" in text for text in told)


def test_of_equal_golds_the_first_is_the_best(world: Path, tmp_path: Path) -> None:
    """The less a model has been trained for the same gold, the less of it is cheating. What was not measured is not the best."""
    recipe = read_recipe(world / "cheated.yaml")
    run = Run.create(tmp_path, "golds", "", {}, {})
    for step, gold in ((3, 0.2), (6, 0.7), (9, None), (12, 0.7), (15, 0.6)):
        run.checkpoint(step, lambda folder: None, {}, keep=9)
        if gold is not None:
            run.write_eval("gold", step, {"reward": Interval(gold, 0.0, 1.0)}, [])
    watch = GoldWatch(recipe, build(recipe), run)
    assert watch.golds == ["gold"] and watch.best == 6


def test_the_gold_is_measured_with_samples_of_its_own(world: Path, tmp_path: Path) -> None:
    """Three for each of four prompts, where the evaluation takes two and the greedy answer."""
    recipe = read_recipe(world / "cheated.yaml", ["watch.gold_samples=3"])
    run, parts = Run.create(tmp_path, "golds", "", {}, {}), build(recipe)
    shown = Display(30, "", Console(file=io.StringIO()))
    with parts.workers() as workers:
        assert GoldWatch(recipe, parts, run).measure(3, workers, shown, StopRequest())
    measured = read_evaluation(run.path / "eval" / "gold@3")
    assert (measured.results["num_prompts"], measured.results["num_samples"]) == (4, 3)
    assert (len(measured.samples), measured.greedy) == (12, [])
    assert measured.results["reward"]["value"] == pytest.approx(fmean(row["total"] for row in measured.samples))


def test_stopping_needs_a_gold_to_measure(world: Path) -> None:
    with pytest.raises(ValueError, match="there is no gold to measure"):
        tiny_runs.run_here(world / "cheated.yaml", world / "none", "watch.action=stop_at_best_gold", "eval.num_prompts=0")
    with pytest.raises(RecipeError, match="gold_every=0"):
        tiny_runs.run_here(world / "cheated.yaml", world / "none", "watch.action=stop_at_best_gold", "watch.gold_every=0")
    with pytest.raises(RecipeError, match=r"watch\.action"):
        tiny_runs.run_here(world / "cheated.yaml", world / "none", "watch.action=stop")
    assert not (world / "none").exists()


def test_a_road_tells_the_alarms_of_its_stages(world: Path) -> None:
    """Where it ends, and in its report; paused, it goes on with the same words."""
    (world / "road.yaml").write_text(CHEATED.replace("steps: 30", "steps: 12") + "stages: [{name: cheated}, {name: after}]\n")
    outcome = tiny_runs.run_here(
        world / "road.yaml", world / "road", "watch.action=pause", "after.watch.action=warn", "after.train.steps=1"
    )
    assert outcome.exit_code == 3
    said = io.StringIO()
    tell(outcome, Console(file=said, width=200))
    assert "of 1-cheated, gold disagrees" in said.getvalue() and "--resume" in said.getvalue()
    while outcome.exit_code == 3:
        outcome = tiny_runs.resume_here(outcome.folder)
    assert outcome.exit_code == 0 and (world / "road" / "2-after").is_dir()
    page = (world / "road" / "report.html").read_text()
    assert "cheated: gold disagrees" in page


def test_alarms_after_the_last_checkpoint_are_raised_again_and_told_once(world: Path) -> None:
    """As after a kill between an alarm and the checkpoint that follows it."""
    run = world / "torn"
    shutil.copytree(world / "warned", run)
    told = [each["step"] for each in alarms(run)]
    for step, folder in checkpoints(run):
        if step >= told[0]:
            shutil.rmtree(folder)
    about = read_json(run / "run.json")
    (run / "run.json").write_text(json.dumps({**about, "status": "running"}))
    assert tiny_runs.resume_here(run).exit_code == 0
    assert [(each["name"], each["step"]) for each in alarms(run)] == [(each["name"], each["step"]) for each in alarms(world / "warned")]


def test_events_are_plain_json(world: Path) -> None:
    """Whoever reads them needs nothing of ours."""
    rows = [json.loads(line) for line in (world / "warned" / "events.jsonl").read_text().splitlines()]
    assert {"time", "seconds", "kind", "step", "name", "since", "text", "do", "samples"} == next(
        row for row in rows if row["kind"] == "alarm"
    ).keys()
