"""Claims: how a verdict comes about, that what was measured is kept, and that every claim can be carried out and shown."""

from __future__ import annotations

import importlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ikusei.cli.main import main
from ikusei.reproduce import CLAIMS, page, running
from ikusei.reproduce.claim import Claim, Criterion, SeedResult
from ikusei.reproduce.workspace import Workspace
from ikusei.run.files import read_json, write_json

RISES = Criterion("it rises", lambda f: f["to"] > f["from"], lambda f: f"{f['from']} → {f['to']}")
SMALL = Criterion("it stays below 9", lambda f: f["to"] < 9, lambda f: f"{f['to']}")


def claim(*criteria: Criterion) -> Claim:
    return Claim(
        "what rises is small",
        "by hand",
        "Two numbers.",
        lambda workspace: {"from": 1, "to": workspace.seed},
        criteria,
        lambda axes, found: None,
    )


@pytest.mark.parametrize(
    ("to", "verdict"),
    [((2, 3, 4), "held"), ((2, 1, 4), "undecided"), ((0, 1, 1), "not held"), ((9, 10, 11), "not held"), ((0, 10, 4), "undecided")],
)
def test_a_verdict_is_of_every_criterion_in_every_seed(to: tuple[int, ...], verdict: str) -> None:
    found: list[SeedResult] = [{"from": 1, "to": each} for each in to]
    assert claim(RISES, SMALL).verdict(found) == verdict
    assert claim(RISES, SMALL).verdict(found[::-1]) == verdict


def test_what_was_measured_is_kept_and_what_failed_is_not(tmp_path: Path) -> None:
    asked = []
    workspace = Workspace(tmp_path / "seed-0", 0)
    for _ in range(2):
        assert workspace.once("figure", lambda: asked.append(1) or {"x": 0.25}) == {"x": 0.25}
    assert asked == [1]
    with pytest.raises(ZeroDivisionError):
        workspace.once("other", lambda: 1 / 0)
    assert not (tmp_path / "seed-0" / "other.json").exists()


def test_a_run_of_the_lab_is_made_once_and_keeps_no_checkpoint(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, 3)
    recipe = {
        "model": "seedling", "task": {"name": "arithmetic", "digits": 2, "terms": 2}, "rewards": ["exact"], "algorithm": "grpo",
        "sampling": {"max_tokens": 4}, "train": {"steps": 1, "prompts_per_step": 2, "num_responses": 2}, "eval": {"num_prompts": 0},
    }  # fmt: skip
    run = workspace.train("short", recipe)
    made = (run / "metrics.jsonl").stat().st_mtime_ns
    assert workspace.train("short", recipe) == run and (run / "metrics.jsonl").stat().st_mtime_ns == made
    assert (
        "seed: 3" in (run / "recipe.yaml").read_text() and (run / "final" / "config.json").exists() and not list(run.glob("checkpoint-*"))
    )
    with pytest.raises(ValueError, match="made by another recipe"):
        workspace.train("short", {**recipe, "train": {**recipe["train"], "steps": 2}})
    (tmp_path / "killed" / "logs").mkdir(parents=True)  # before it was a run
    assert (workspace.train("killed", recipe) / "final").is_dir()
    with pytest.raises(ValueError, match="no_such"):
        workspace.train("wrong", {**recipe, "algorithm": "no_such"})


def test_the_command_measures_keeps_and_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["reproduce", "kl_estimators", "--folder", str(tmp_path / "made"), "--out", str(tmp_path / "docs")]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0 and "kl_estimators" in capsys.readouterr().out
    told = (tmp_path / "docs" / "reproduced.md").read_text()
    assert ("| **held** |" in told and "Not measured yet" in told) or len(CLAIMS) == 1
    assert (tmp_path / "docs" / "reproduced" / "kl_estimators.svg").read_text().startswith("<svg")
    shutil.rmtree(tmp_path / "made" / "kl_estimators" / "seed-1")
    before = (tmp_path / "docs" / "reproduced.md").read_text()
    page.write(tmp_path / "made", tmp_path / "docs")
    assert (tmp_path / "docs" / "reproduced.md").read_text() == before, "what is not measured there stays as it was"
    taken = [read_json(tmp_path / "made" / "kl_estimators" / f"seed-{seed}" / "found.json")["cpu_s"] for seed in (0, 2)]
    assert [(each.name, each.seed, each.problem) for each in running.carry_out(["kl_estimators"], tmp_path / "made")] == [
        ("kl_estimators", 1, None)
    ]
    assert all(taken)


def test_what_was_measured_with_another_setup_is_measured_anew(tmp_path: Path) -> None:
    made, docs = tmp_path / "made", tmp_path / "docs"
    seeds = [made / "kl_estimators" / f"seed-{seed}" for seed in running.SEEDS]
    for seed in running.SEEDS:
        running.measure("kl_estimators", seed, made)
    page.write(made, docs)
    kept = docs / "reproduced" / "kl_estimators.json"
    write_json(kept, [{**row, "setup": "Another one."} for row in read_json(kept)])
    write_json(seeds[1] / "found.json", {**read_json(seeds[1] / "found.json"), "setup": "Another one."})
    (seeds[1] / "setup.txt").write_text("Another one.", encoding="utf-8")
    (seeds[1] / "gradients.json").write_text("[]", encoding="utf-8")  # what it measured on the way
    page.write(made, docs)
    assert "kl_estimators" in (docs / "reproduced.md").read_text().rpartition("Not measured yet")[2]
    assert [each.seed for each in running.carry_out(["kl_estimators"], made)] == [1]
    assert not (seeds[1] / "gradients.json").exists() and len(running.results(made, "kl_estimators")) == len(seeds)


def test_a_claim_that_fails_is_told_and_leaves_the_others_alone(tmp_path: Path) -> None:
    [done] = running.carry_out(["no_such_claim"], tmp_path, seeds=(0,))
    assert done.problem is not None and "no_such_claim" in done.problem and "allowed" in done.problem
    with pytest.raises(ValueError, match="no claim 'sky'"):
        running.chosen(["sky"])


def test_all_means_all_in_their_order() -> None:
    assert running.chosen(["all"]) == list(CLAIMS) == list(dict.fromkeys(CLAIMS))
    assert set(running.chosen(["quick"])) < set(CLAIMS) or len(CLAIMS) == 1


@pytest.mark.parametrize("name", CLAIMS)
def test_every_claim_says_what_it_must(name: str) -> None:
    found = importlib.import_module(f"ikusei.reproduce.claims.{name}").CLAIM
    assert found.says and found.source and found.setup.endswith(".") and found.criteria
    assert len({criterion.says for criterion in found.criteria}) == len(found.criteria)
    assert replace(found, criteria=()).verdict([{}]) == "held"


def test_the_page_says_which_criterion_failed(tmp_path: Path) -> None:
    rows = [{"seed": seed, "found": {"from": 1, "to": to}, "cpu_s": 2.0} for seed, to in enumerate((2, 0, 4))]
    told = "\n".join(page.section("rising", claim(RISES, SMALL), rows))
    assert "| it rises | 1 → 2 ✓ | 1 → 0 ✗ | 1 → 4 ✓ |" in told and "**undecided**" in told
    write_json(tmp_path / "x.json", rows)
