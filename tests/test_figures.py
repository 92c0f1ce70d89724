"""A figure of an evaluation is one record: by it alone results.json, the last lines of a run and every part of its report have it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from ikusei.eval_metrics import answers, rows
from ikusei.eval_metrics.answers import Answers
from ikusei.eval_metrics.metric import SHARE, Curve, Figure, belongs, measure
from ikusei.guard.outcomes import RewardSpec
from ikusei.guard.workers import RewardWorkers
from ikusei.intervals import Interval, mean_interval
from ikusei.loops.evaluate import EvalSettings, evaluate
from ikusei.pipeline.outcome import Outcome, tell
from ikusei.report.run import write_report
from ikusei.report.tables import table_of_answers, table_of_rows
from ikusei.run.files import plain
from ikusei.run.folder import Run
from ikusei.run.read import Evaluation
from ikusei.samplers.load import load_sampler
from ikusei.tasks.arithmetic import Arithmetic
from ikusei.text.chat import render
from ikusei.types import Group, Prompt, Response, Sampling


def short(evidence: Answers) -> Interval:
    return mean_interval([float(len(group.responses[0].tokens) < 7) for group in evidence.groups])


def moved(before: Evaluation | None, after: Evaluation) -> str | None:
    return f"Short answers: {after.intervals['short']:.2f}." if "short" in after.intervals else None


def all_right(evidence: Answers) -> dict[int, Interval]:
    return {k: mean_interval([float(all(row[:k])) for row in evidence.right]) for k in evidence.ks}


SHORT = Figure("short", "short answers", Answers, short, SHARE, "under 7 tokens", moved, large="short ones", headline=True)
ALL = Figure("all@{k}", "all {k} right", Answers, all_right, SHARE, curve=Curve("All of k answers right", note="bands: intervals"))


def test_a_figure_is_one_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "FIGURES", (*answers.FIGURES, SHORT, ALL))
    sampler, run = load_sampler("seedling"), Run.create(tmp_path, "tiny", "", {"name": "tiny"}, {})
    prompts = [render(sampler.tokenizer, Arithmetic().row("test", index)) for index in range(4)]
    with RewardWorkers([RewardSpec("exact", "exact")], num_workers=1) as workers:
        made = evaluate(sampler, prompts, workers, EvalSettings(4, 4, greedy=False), Sampling(max_tokens=40), seed=1)
    for name, step in (("before", 0), ("after", 9)):
        run.write_eval(name, step, {"name": name, "step": step, **made.results}, made.rows)
    assert made.results["short"] == mean_interval([float(made.rows[4 * i]["num_tokens"] < 7) for i in range(4)])
    assert 0 < made.results["short"].value < 1, "else nothing is told apart"
    assert [key for key in made.results if key.startswith("all@")] == ["all@1", "all@2", "all@4"]

    screen = io.StringIO()
    summary = {"status": "finished", "eval": dict.fromkeys(("before", "after"), plain(made.results))}
    tell(Outcome(run.path, summary), Console(file=screen, width=200))
    assert f"held-out short: {made.results['short']} → {made.results['short']}" in screen.getvalue()
    page = write_report(run.path).read_text("utf-8")
    assert "<div>short ones</div>" in page and 'short answers<span class="faint">under 7 tokens</span>' in page
    assert f"Short answers: {made.results['short']:.2f}." in page
    assert "<h3>All of k answers right</h3>" in page and "bands: intervals" in page and "all 4 right" in page


def test_each_name_is_one_figures() -> None:
    """The name of a single figure comes before a family that would hold it too; few-shot figures are of answers."""
    every = (*answers.FIGURES, *rows.FIGURES)
    assert len({figure.name for figure in every}) == len(every)
    names = {"pass@1": "pass@1", "pass@16": "pass@{k}", "rewards/exact": "rewards/{name}", "rewards/chosen": "rewards/chosen"}
    names |= {"3-shot/pass@1": "{k}-shot/pass@1", "calibration": "calibration"}
    assert {key: figure.name for key in names if (figure := belongs(key, every))} == names
    assert belongs("pass@k", every) is None and belongs("my/own", every) is None
    assert [answers.FIGURES[1].labelled("pass@16"), belongs("mean_length", every).labelled("mean_length")] == [  # type: ignore[union-attr]
        "pass@16", "length of answers, tokens",
    ]  # fmt: skip


def test_what_does_not_apply_has_no_figure() -> None:
    """Rewards of 0 and 1, no gold, no greedy answers, no thoughts, no known answers: nothing is made up for them."""
    group = Group(Prompt("p", (1,), "p"), (Response((1, 2), (True, True), "a"), Response((1,), (True,), "b")))
    found = measure(answers.FIGURES, Answers([group], [[1.0, 0.0]], [], bool, [], []))
    assert list(found) == ["pass@1", "pass@2", "maj@2", "reward", "mean_length", "truncated", "failed"]
    assert (found["pass@1"].value, found["pass@2"].value, found["mean_length"], found["failed"]) == (0.5, 1.0, 1.5, 0.0)
    assert measure(answers.FIGURES, object()) == {}


def test_each_table_has_its_figures() -> None:
    """Of answers, also with examples in the prompt; of rows, with a metric of a user's own under its name; of a family the largest k."""
    each = {"value": 0.5, "low": 0.25, "high": 0.75}
    names = ("pass@1", "maj@2", "maj@16", "3-shot/pass@1", "best_of_4", "reward", "rewards/exact", "loss", "my/own", "mean_reward")
    made = Evaluation("after", 9, {"num_samples": 16, **dict.fromkeys(names, each)}, [], [])
    labels = [[row.label for row in table(None, made)] for table in (table_of_answers, table_of_rows)]
    assert labels == [["pass@1", "pass@1 with 3 examples", "maj@16", "reward of an answer", "reward exact"], ["loss", "my/own"]]
    assert [row.note for row in table_of_answers(None, made)][2] == "the answer that most of 16 give"
