"""What `ikusei check --write` makes of the model's own answers, and what preference data says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ikusei.pipeline.train import train
from ikusei.preflight.check import check_file
from ikusei.preflight.preference_data import preference_data
from ikusei.recipe.reader import parse
from ikusei.recipe.stages import read_stages
from ikusei.run.files import read_lines
from ikusei.tasks.files import Files
from ikusei.types import Group, Prompt, Response

RECIPE = """
model: seedling
task: {name: arithmetic, digits: 3, terms: 2}
rewards: [exact]
algorithm: {name: grpo, clip_high: 0.28}
sampling: {max_tokens: 48}
train: {steps: 1, prompts_per_step: 4, num_responses: 8, lr: 1e-5}
eval: {num_prompts: 2, num_samples: 2}
"""


@pytest.fixture(autouse=True)
def fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as a test needs."""
    monkeypatch.setattr("ikusei.preflight.advice.PROMPTS", 64)
    monkeypatch.setattr("ikusei.preflight.advice.ANSWERS", 8)


def test_a_recipe_that_is_ready_gets_the_prompts_that_teach(tmp_path: Path) -> None:
    """The files hold what they say, and the recipe beside them runs."""
    (tmp_path / "sums.yaml").write_text(RECIPE)
    found = check_file(tmp_path / "sums.yaml", files=tmp_path / "advice")
    assert found.verdict is not None and found.verdict.name == "ready"
    middle, right = (read_lines(tmp_path / "advice" / name) for name in ("middle.jsonl", "right.jsonl"))
    assert 16 <= len(middle) < 64 and all(0.2 <= row["pass_rate"] <= 0.8 for row in middle)
    assert len(right) > len(middle) and all(row["completion"].rpartition("</think>")[2] == row["answer"] for row in right)
    assert len({row["prompt"] for row in right}) == len(right), "one a prompt"
    advised = tmp_path / "advice" / "recommended.yaml"
    stages = read_stages(parse(advised))
    assert [stage.name for stage in stages] == ["middle", "whole"]
    own = stages[0].recipe()
    assert (own.algorithm.clip_high, own.train.lr, own.sampling.max_tokens) == (0.28, 1e-5, 48)
    assert own.eval_task == stages[1].recipe().task, "held-out questions are the recipe's own"
    assert train(advised, folder=tmp_path / "run").exit_code == 0
    assert any("middle.jsonl" in line for line in found.written)
    with pytest.raises(ValueError, match="exists, and nothing is overwritten"):
        check_file(tmp_path / "sums.yaml", files=tmp_path / "advice")


def test_a_recipe_that_is_too_hard_is_fine_tuned_first(tmp_path: Path) -> None:
    """One group a step of one prompt hardly ever teaches: too hard by the rule, with right answers to learn from."""
    (tmp_path / "sums.yaml").write_text(RECIPE.replace("prompts_per_step: 4", "prompts_per_step: 2"))
    found = check_file(tmp_path / "sums.yaml", files=tmp_path / "advice")
    assert found.verdict is not None and found.verdict.name == "too hard"
    stages = read_stages(parse(tmp_path / "advice" / "recommended.yaml"))
    assert [stage.name for stage in stages] == ["right", "middle", "whole"]
    assert type(stages[0].recipe().algorithm).__name__ == "LanguageModelling"


def test_where_nothing_is_right_there_is_nothing_to_write(tmp_path: Path) -> None:
    (tmp_path / "sums.yaml").write_text(RECIPE)
    found = check_file(tmp_path / "sums.yaml", ["task.digits=5"], tmp_path / "advice")
    assert "teach it from worked examples first" in found.written[-1]
    assert not (tmp_path / "advice" / "recommended.yaml").exists()


def pairs(folder: Path, rows: list[dict[str, Any]], rewards: str = "rewards: [exact]") -> Path:
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = "{name: files, path: pairs.jsonl, test_share: 0.2}"
    (folder / "dpo.yaml").write_text(
        f"model: seedling\ntask: {task}\n{rewards}\nalgorithm: dpo\nsampling: {{max_tokens: 48}}\n"
        "train: {steps: 1, examples_per_step: 4}\n"
    )
    return folder / "dpo.yaml"


FAR = [{"prompt": f"{n}+111=", "answer": str(n + 111), "chosen": f"Of course it is {n + 111}!", "rejected": "No."} for n in range(100, 160)]


def test_pairs_from_elsewhere_are_told_and_own_ones_made(tmp_path: Path) -> None:
    recipe = pairs(tmp_path, FAR)
    found = check_file(recipe, files=tmp_path / "advice")
    assert "the longer answer is the better one in 100%" in found.facts["pairs"]
    assert any("length alone is right on 100%" in text for text in found.warnings)
    assert "log-prob gap to the model's own samples, nats per token: chosen" in found.facts["gap"]
    assert any("they come from elsewhere" in text and "--write" in text for text in found.warnings)
    own = read_lines(tmp_path / "advice" / "pairs.jsonl")
    assert len(own) >= 16
    assert all(row["chosen"].rpartition("</think>")[2] == row["answer"] != row["rejected"].rpartition("</think>")[2] for row in own)
    stage = read_stages(parse(tmp_path / "advice" / "recommended.yaml"))[0].recipe()
    assert type(stage.algorithm).__name__ == "DPO" and stage.train.examples_per_step == 4
    assert isinstance(stage.eval_task, Files) and Path(stage.eval_task.path) == tmp_path / "pairs.jsonl", "held-out rows are the recipe's"


def test_what_cannot_be_written_is_told_before_anything_is_sampled(tmp_path: Path) -> None:
    """Of recipes that collect or train a reward model."""
    (tmp_path / "collects.yaml").write_text("task: {name: arithmetic}\nrewards: [exact]\ncollect: {}\n")
    judge = pairs(tmp_path, FAR).read_text().replace("algorithm: dpo", "algorithm: bradley_terry")
    (tmp_path / "judge.yaml").write_text(judge)
    for name, told in (("collects", "this one collects"), ("judge", "trains a reward model")):
        with pytest.raises(ValueError, match=told):
            check_file(tmp_path / f"{name}.yaml", files=tmp_path / "advice")
    assert not (tmp_path / "advice").exists()


def test_a_recipe_that_learns_from_answers_gets_right_ones_and_no_pairs(tmp_path: Path) -> None:
    learns = "algorithm: lm\ntrain: {steps: 1, examples_per_step: 4}\ntask: {name: arithmetic, shown: lazy}\n"
    (tmp_path / "sft.yaml").write_text(learns + "rewards: [exact]\nsampling: {max_tokens: 48}\n")
    found = check_file(tmp_path / "sft.yaml", ["task.digits=3"], tmp_path / "advice")
    assert {file.name for file in (tmp_path / "advice").iterdir()} == {"right.jsonl", "middle.jsonl", "recommended.yaml"}
    assert [stage.name for stage in read_stages(parse(tmp_path / "advice" / "recommended.yaml"))] == ["right"], found.written


def test_own_pairs_need_a_judge(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="answers are judged by rewards"):
        check_file(pairs(tmp_path, FAR, ""), files=tmp_path / "advice")
    assert not (tmp_path / "advice").exists()


def test_judgements_by_hand() -> None:
    """Three people on one pair, two of whom agree: one of three pairs of judgements. Of a pair that is as long as its other, a half."""

    def group(prompt: str, better: str, worse: str) -> Group:
        answers = tuple(Response((1,), (True,), text) for text in (better, worse))
        return Group(Prompt(prompt, (1,), prompt), answers, tiers=(0, 1))

    rows = [group("a", "long one", "short"), group("a", "short", "long one"), group("a", "long one", "short"), group("b", "same", "size")]
    found = preference_data([*rows, group("c", "x", "longer")])
    assert found is not None and (found.pairs, found.repeated) == (5, 1)
    assert found.longer.value == pytest.approx((1 + 0 + 1 + 0.5 + 0) / 5)
    assert found.agreement is not None and found.agreement.value == pytest.approx(1 / 3)
    assert preference_data([Group(Prompt("a", (1,), "a"), (Response((1,), (True,), "x"),))]) is None
