"""The report of a pipeline: it compares what was measured alike, names every stage, and says where the pipeline ended."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ikusei.report.pipeline import write_overview
from ikusei.run.files import append_line
from ikusei.run.folder import Run

GOLD = {"name": "judge", "path": "judge", "gold": True}
LEARNED = {"name": "learned", "path": "learned", "gold": False}


def stage(pipeline: Run, folder: str, algorithm: str, rewards: tuple[dict[str, Any], ...] = (GOLD,), temperature: float = 1.0) -> Run:
    settings = {
        "name": folder.partition("-")[2],
        "task": {"name": "cat_lover"},
        "rewards": list(rewards),
        "algorithm": {"name": algorithm},
        "sampling": {"temperature": temperature},
        "eval": {"pass_at": 1.0},
    }
    return Run.create(pipeline.path, "", "", settings, {}, pipeline.path / folder)


def answers(run: Run, name: str, step: int, right: float, num_prompts: int = 8, reward: float | None = None) -> None:
    """An evaluation of sampled answers whose intervals reach 0.05 to either side."""
    figures = {"pass@1": right, "pass@4": min(1.0, right + 0.2), "reward": right if reward is None else reward}
    told = {key: {"value": value, "low": value - 0.05, "high": value + 0.05} for key, value in figures.items()}
    told_right = [i < round(20 * right) for i in range(20)]  # of each prompt's twenty samples
    row = {"prompt": "ねこ", "answer": None, "response": "はい", "num_tokens": 2}
    rows = [{"prompt_id": f"p{i}", "correct": each, **row} for i in range(num_prompts) for each in told_right]
    run.write_eval(name, step, {"name": name, "step": step, "num_prompts": num_prompts, "num_samples": 4, "seconds": 1.0, **told}, rows)


def rankings(run: Run, name: str, step: int, accuracy: float) -> None:
    around = {"value": accuracy, "low": accuracy - 0.05, "high": accuracy + 0.05}
    run.write_eval(name, step, {"name": name, "step": step, "num_rows": 9, "accuracy": around, "agreement": around}, [])


def train(run: Run, num_steps: int, status: str | None = "finished") -> None:
    for step in range(1, num_steps + 1):
        run.record(
            step, {"loss": 1.0, "time/step": 60.0, "num_tokens": 100.0 * step, "tokens_sampled": 50.0 * step, "memory/peak_mb": 300.0}
        )
    if status:
        finish(run, status)


def finish(run: Run, status: str) -> None:
    run.finish({"status": status, "steps": 1, "eval": {}, "tokens_sampled": 0, "tokens_trained": 0})


def new_pipeline(root: Path) -> Run:
    return Run.create(root, "instructgpt", "", {"stages": []}, {})


def collect(pipeline: Run, folder: str) -> Run:
    settings = {"kind": "rankings", "num_prompts": 4, "prompts_per_step": 4}
    run = Run.create(pipeline.path, "", "", {"name": "rankings", "collect": settings}, {}, pipeline.path / folder)
    for i in range(3):
        append_line(run.path / "data.jsonl", {"prompt": f"{i}", "responses": ["a", "b"], "ranking": [1, 2], "rewards": [1.0, 0.0]})
    run.record(1, {"reward": 0.5, "reward_std": 0.1, "rows": 3.0, "tokens_sampled": 40.0})
    finish(run, "finished")
    return run


def overview(pipeline: Run, *stages: str) -> tuple[str, str]:
    """(source, text with single spaces) of the pipeline's report."""
    source = write_overview(pipeline.path, stages).read_text(encoding="utf-8")
    body = re.sub(r"<(style|svg)\b.*?</\1>", " ", source, flags=re.DOTALL)
    return source, re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body)).replace("&#39;", "'")


def test_a_whole_pipeline(tmp_path: Path) -> None:
    pipeline = new_pipeline(tmp_path)
    sft = stage(pipeline, "1-sft", "lm")
    answers(sft, "before", 0, 0.2)
    train(sft, 2)
    answers(sft, "after", 2, 0.4)
    collect(pipeline, "2-rankings")
    reward = stage(pipeline, "3-reward", "bradley_terry")
    rankings(reward, "before", 0, 0.5)
    train(reward, 3)
    rankings(reward, "after", 3, 0.9)
    ppo = stage(pipeline, "4-ppo", "ppo", (LEARNED, GOLD))
    answers(ppo, "before", 0, 0.4)
    train(ppo, 4)
    ppo.event("warning", step=2, text="step 2: <b>half</b> cut off")
    answers(ppo, "after", 4, 0.7)
    (ppo.path / "report.html").write_text("")
    finish(pipeline, "finished")
    source, text = overview(pipeline, "1-sft", "2-rankings", "3-reward", "4-ppo")
    assert "right at the first try 20% → 70% 95% intervals 15–25% and 65–75%" in text
    assert "From the start to after ppo, right at the first try: +50 points (95% interval" in text
    assert "Not compared" not in text and "before ppo" not in text  # what a stage begins with is what the one before it left
    assert source.count("<svg") == 1 and all(f">{label}</text>" in source for label in ("start", "sft", "ppo", "pass@1", "pass@4"))
    assert "1 sft lm 2" in text and "right at the first try 20% (15–25%) → 40% (35–45%)" in text
    assert "2 rankings collected rankings 1" in text and "3 rows, from 75% " in text
    assert "3 reward bradley_terry 3" in text and "pairs in the right order 50% (45–55%) → 90% (85–95%)" in text
    assert source.count("<a href") == 1 and '<a href="4-ppo/report.html">ppo</a>' in source
    assert "ppo: step 2: &lt;b&gt;half" in source
    assert "490 tokens sampled" in text and "900 tokens trained on" in text and "300 MB" in text and "training 9 min 0 s" in text
    assert "evaluation 4.0 s" in text and "banner" not in source[source.index("<body>") :]


def test_the_lens_is_shown_and_takes_the_colours_of_the_page(tmp_path: Path) -> None:
    pipeline = new_pipeline(tmp_path)
    collect(pipeline, "1-rankings")
    assert "Where the probability lies" not in overview(pipeline, "1-rankings")[1]
    (pipeline.path / "lens.svg").write_text("<svg><style>svg{--card:red}</style><path/></svg>")
    source, text = overview(pipeline, "1-rankings")
    assert "Where the probability lies, by stage" in text and "<svg><path/></svg>" in source and "--card:red" not in source


@pytest.mark.parametrize(
    "other",
    [{"temperature": 0.5}, {"rewards": (LEARNED,)}, {"num_prompts": 9}],
    ids=["sampling", "judges", "prompts"],
)
def test_what_was_measured_in_another_way_is_not_compared(tmp_path: Path, other: dict[str, Any]) -> None:
    pipeline = new_pipeline(tmp_path)
    num_prompts = other.pop("num_prompts", 8)
    first = stage(pipeline, "1-sft", "lm", **other)
    answers(first, "before", 0, 0.1, num_prompts)
    answers(first, "after", 2, 0.2, num_prompts)
    second = stage(pipeline, "2-grpo", "grpo")
    answers(second, "before", 0, 0.5, reward=1.5)
    answers(second, "after", 2, 0.55, reward=2.5)
    finish(pipeline, "finished")
    source, text = overview(pipeline, "1-sft", "2-grpo")
    assert "From before grpo to after grpo, right at the first try: neither gain nor loss can be claimed: +5 points" in text
    assert "From before grpo to after grpo, reward judge, gold: more than before" in text
    assert "with other sampling: start, sft." in text and source.count("<svg") == 2


@pytest.mark.parametrize(("status", "how"), [("failed", "failed"), ("interrupted", "was interrupted")])
def test_a_road_that_ended_midway(tmp_path: Path, status: str, how: str) -> None:
    pipeline = new_pipeline(tmp_path)
    collect(pipeline, "1-rankings")
    second = stage(pipeline, "2-dpo", "dpo")
    answers(second, "before", 0, 0.5)
    train(second, 3, None)
    second.event("error", text="step 3: the loss is nan")
    finish(second, status)
    finish(pipeline, status)
    _, text = overview(pipeline, "1-rankings", "2-dpo", "3-ppo")
    assert f"This pipeline {how} in stage 2 of 3, dpo." in text and text.count("step 3: the loss is nan") == 2
    assert f"2 dpo {status}" in text and "3 ppo not begun" in text and "50% (45–55%) before it" in text
    assert "What the pipeline has gained is not known" in text and "intervals lie apart" not in text


def test_a_road_that_has_hardly_begun(tmp_path: Path) -> None:
    pipeline = new_pipeline(tmp_path)
    _, text = overview(pipeline, "1-sft", "2-dpo")
    assert "has not ended, or was killed in stage 1 of 2, sft" in text and text.count("not begun") == 2
    with pytest.raises(ValueError, match="no run there"):
        write_overview(tmp_path, ["1-sft"])
