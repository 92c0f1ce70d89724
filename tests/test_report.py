"""The report: one page that needs nothing else, says no more than the figures do, and copes with any run."""

from __future__ import annotations

import json
import math
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ikusei.intervals import mean_interval, pass_at
from ikusei.report.charts import kl_of
from ikusei.report.examples import side_by_side
from ikusei.report.run import write_report
from ikusei.report.svg import Line, by_step, extremes
from ikusei.run.folder import Run

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """The text of a page; asserts that every tag is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)


def report(run: Run) -> tuple[str, str]:
    """(source, text with single spaces) of the run's report."""
    source = write_report(run.path).read_text(encoding="utf-8")
    page = Page()
    page.feed(source)
    assert page.open == []
    return source, re.sub(r"\s+", " ", " ".join(page.words))


def new_run(root: Path) -> Run:
    return Run.create(root, "tiny", "", {"name": "tiny", "prompt": "ねこはすきですか？"}, {"threads": 2})


def evaluate(run: Run, name: str, step: int, share: float, empty: float) -> None:
    rng = random.Random(5)
    correct = [[rng.random() < share for _ in range(8)] for _ in range(24)]
    rows = []
    for i, samples in enumerate(correct):
        for right in samples:
            response = f"<think>{'' if rng.random() < empty else 'ゆっくり <b>'}</think>{i if right else '?'}"
            rows.append(
                {"prompt_id": f"p{i}", "prompt": f"ねこ & {i}", "answer": str(i), "response": response, "correct": right, "num_tokens": 9}
            )
    table: dict[str, Any] = {f"pass@{k}": pass_at(k, correct) for k in (1, 2, 4, 8)}
    table["reward"] = mean_interval([sum(samples) / 8 for samples in correct])
    about = {"name": name, "step": step, "num_prompts": 24, "num_samples": 8, "seconds": 3.0}
    run.write_eval(name, step, {**about, **table, "mean_length": 9.0, "empty_thoughts": empty, "truncated": 0.0}, rows)


def train(run: Run, num_steps: int, **more: float) -> None:
    for step in range(1, num_steps + 1):
        metrics = {
            "reward": 0.2 + 0.01 * step,
            "reward_std": 0.3,
            "loss": 1e-9,
            "thoughts/mean_length": 5.0 + step,
            "thoughts/empty": 1 / step,
        }
        metrics |= {"completions/clipped_ratio": 0.02, "groups/all_zero": 0.5, "groups/all_full": 0.25, "kl": 0.1, "entropy": 0.4}
        metrics |= {
            "time/sample": 0.1,
            "time/train": 0.2,
            "tokens_sampled": 1000.0 * step,
            "num_tokens": 800.0 * step,
            "memory/peak_mb": 512.0,
        }
        run.record(step, metrics | more)


def finish(run: Run, status: str = "finished") -> None:
    run.finish({"status": status, "steps": 30, "eval": {}, "tokens_sampled": 30000, "tokens_trained": 24000})


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = new_run(tmp_path_factory.mktemp("whole"))
    evaluate(run, "before", 0, 0.2, 0.75)
    train(run, 30, **{"reward_errors/exact": 1.0, "reward_timeouts/length/tags": 2.0})
    run.event("warning", step=3, text="step 3: <b>half</b> of the answers were cut off")
    run.event("warning", step=3, text="step 3: <b>half</b> of the answers were cut off")  # said again after a resume
    evaluate(run, "after", 30, 0.9, 0.125)
    finish(run)
    return run


@pytest.fixture(scope="module")
def page(whole_run: Run) -> tuple[str, str]:
    return report(whole_run)


def test_the_page_needs_nothing_else(whole_run: Run, page: tuple[str, str]) -> None:
    source, _ = page
    assert source.startswith('<!doctype html>\n<html lang="en">') and '<meta charset="utf-8">' in source and 'name="viewport"' in source
    assert not re.search(r"<script|<link|<img|\bsrc=|@import|url\((?!#)|<b>half", source)
    assert set(re.findall(r"https?://[\w./]+", source)) == {"http://www.w3.org/1999/xlink", "http://www.w3.org/2000/svg"}
    assert "prefers-color-scheme: dark" in source and not re.search(r"#00000\d", source)
    assert str(whole_run.path.parent) not in source


def test_the_same_run_gives_the_same_page(whole_run: Run, page: tuple[str, str]) -> None:
    assert report(whole_run) == page


def test_it_says_what_was_gained_with_intervals(whole_run: Run, page: tuple[str, str]) -> None:
    _, text = page
    before, after = (mean_interval(list(shares)) for shares in (shares_right(whole_run, name) for name in ("before@0", "after@30")))
    assert f"right at the first try {100 * before.value:.0f}% → {100 * after.value:.0f}%" in text
    assert f"{100 * before.low:.0f}–{100 * before.high:.0f}% and {100 * after.low:.0f}–{100 * after.high:.0f}%" in text
    assert "right more often than before: +67 points (95% interval" in text and "prompt by prompt" in text
    assert "empty thoughts 75% → 12%" in text
    for k in (1, 2, 4, 8):
        assert f"pass@{k} " in text
    assert "24 held-out prompts, 8 samples of each" in text


def shares_right(run: Run, folder: str) -> list[float]:
    from ikusei.run.tables import read_table

    rows = read_table(run.path / "eval" / folder / "samples.parquet")
    return [sum(row["correct"] for row in rows[start : start + 8]) / 8 for start in range(0, len(rows), 8)]


def test_it_shows_how_it_came_about_what_it_cost_and_what_went_wrong(page: tuple[str, str]) -> None:
    source, text = page
    titles = ("Reward", "Length of thoughts, characters", "Empty thoughts", "Answers cut off at the limit", "Groups that teach nothing")
    assert all(f"<h3>{title}</h3>" in source for title in titles) and "<h3>Loss</h3>" not in source
    assert source.count("<svg") == source.count("<figure") == 11
    assert "ゆっくり <b>" in text and "(an empty thought)" in text and "ねこ &" in text
    assert "sampling 3.0 s" in text and "training 6.0 s" in text and "evaluation 6.0 s" in text
    assert "30,000 tokens sampled" in text and "24,000 tokens trained on" in text and "512 MB" in text
    assert text.count("step 3: <b>half</b> of the answers were cut off") == 1
    assert "reward exact: raised an error 30 ×" in text and "reward length/tags: ran out of time 60 ×" in text
    assert "ねこはすきですか？" in text and "python" in text and "threads: 2" in text


@pytest.mark.parametrize(("share", "sentence"), [(0.55, "no gain can be claimed"), (0.02, "right less often than before")])
def test_it_claims_no_more_than_the_intervals(tmp_path: Path, share: float, sentence: str) -> None:
    run = new_run(tmp_path)
    evaluate(run, "before", 0, 0.5, 0.5)
    evaluate(run, "after", 30, share, 0.5)
    finish(run)
    _, text = report(run)
    assert sentence in text and "right more often" not in text and "No step was recorded" in text


def test_a_narrowed_model_is_called_so(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    evaluate(run, "before", 0, 0.5, 0.5)
    evaluate(run, "after", 30, 0.05, 0.5)
    assert "what the trained model can reach is narrower" in report(run)[1]


def test_a_run_that_failed_midway(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    evaluate(run, "before", 0, 0.2, 0.75)
    train(run, 25, loss=math.nan, reward=math.nan)
    run.event("error", step=25, text="step 25: the loss is not a number, in the group of prompt p3")
    finish(run, "failed")
    _, text = report(run)
    assert "This run failed after step 25" in text and "in the group of prompt p3" in text
    assert "no evaluation of the trained model was made" in text


def test_a_killed_supervised_run_without_evaluation(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    for step in range(1, 41):
        run.record(step, {"loss": 4.0 - step / 20, "learning_rate": 1e-3, "num_tokens": 100.0 * step})
    with (run.path / "metrics.jsonl").open("a") as log:
        log.write('{"step": 41, "lo')
    source, text = report(run)
    assert "<h3>Loss</h3>" in source and "<h3>Learning rate</h3>" in source and "<h3>Reward</h3>" not in source
    assert "has not ended, or was killed" in text and "loss 3.850 → 2.100" in text
    assert "no evaluation of the base and of the trained model was made" in text


def test_a_run_that_has_hardly_begun(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    assert "No step was recorded" in report(run)[1]
    run.record(1, {"reward": math.nan, "reward_std": math.nan})
    assert "No step was recorded" in report(run)[1], "one step is no curve"
    run.record(2, {"reward": 0.5, "reward_std": math.nan})
    assert "<h3>Reward</h3>" in report(run)[0]
    with pytest.raises(ValueError, match="no run there"):
        write_report(tmp_path)


def interval(value: float, half: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def measured(run: Run, name: str, step: int, **figures: Any) -> None:
    """An evaluation on rows of data alone: (value, half its interval), or a figure without one."""
    told = {key.replace("__", "/"): interval(*each) if isinstance(each, tuple) else each for key, each in figures.items()}
    run.write_eval(name, step, {"name": name, "step": step, "num_rows": 40, **told}, [])


def test_a_policy_that_learned_from_pairs(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    nothing = {"rewards__chosen": (0.0, 0.07), "rewards__rejected": (0.0, 0.07), "rewards__accuracies": (0.0, 0.07)}
    measured(run, "before", 0, loss=(0.69, 0.01), **nothing, logps__chosen=(-10.0, 1.0))
    for step in range(1, 31):
        pairs = {"rewards/accuracies": 0.9, "rewards/margins": 0.1 * step, "rewards/chosen": -0.1 * step, "rewards/rejected": -0.2 * step}
        run.record(step, {"loss": 0.7, **pairs, "logps/chosen": -10.0 - step, "logps/rejected": -12.0 - 2 * step, "time/step": 1.0})
    after = {"rewards__chosen": (-3.0, 0.5), "rewards__rejected": (-6.0, 0.5), "rewards__accuracies": (0.9, 0.08)}
    measured(run, "after", 30, loss=(0.3, 0.05), **after, logps__chosen=(-40.0, 5.0))
    source, text = report(run)
    assert "chosen answer preferred 90% on held-out rows; 95% interval 82–98%; by chance 50%" in text and "0% →" not in text
    assert "It prefers the chosen answer in 90% (82–98%) of held-out pairs, more often than by chance" in text
    assert "became less likely: log-probability −10.0 (−11.0 to −9.0) → −40.0 (−45.0 to −35.0). Likelihood displacement" in text
    assert "The chosen answers become less likely too: −15.5 in the first third of the steps, −35.5 in the last" in text
    assert "Whether its answers became better was not measured" in text and "not known" not in text
    assert "40 rows that it does not learn from" in text and "implicit rewards are 0 by definition" in text and "training 30.0 s" in text
    assert all(f"<h3>{title}</h3>" in source for title in ("Implicit rewards", "Margin of implicit rewards", "Loss"))


def test_pairs_that_show_nothing_are_told_so(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    measured(
        run,
        "before",
        0,
        rewards__accuracies=(0.5, 0.1),
        rewards__chosen=(-1.0, 0.1),
        rewards__rejected=(-1.0, 0.1),
        logps__chosen=(-10.0, 1.0),
    )
    measured(
        run,
        "after",
        9,
        rewards__accuracies=(0.58, 0.1),
        rewards__chosen=(-1.0, 0.1),
        rewards__rejected=(-2.0, 0.1),
        logps__chosen=(-11.0, 1.0),
    )
    text = report(run)[1]
    assert "chosen answer preferred 50% → 58%" in text  # an algorithm without a reference has a figure before it too
    assert "58% (48–68%) of held-out pairs, which cannot be told from chance" in text and "displacement" not in text


BINS = [{"stated": 0.6, "right": 0.5, "pairs": 30}, {"stated": 0.9, "right": 0.7, "pairs": 10}]


@pytest.mark.parametrize(
    ("bias", "said"),
    [
        (0.41, "It prefers longer answers: correlation 0.410 with length"),
        (-0.41, "It prefers shorter answers: correlation −0.410"),
        (0.3, "No liking for long or short answers shows on 40 rankings"),  # within 2 / sqrt(40) of 0
    ],
)
def test_a_reward_model(tmp_path: Path, bias: float, said: str) -> None:
    run = new_run(tmp_path)
    figures = {"calibration": BINS, "calibration_error": 0.125, "length_bias": bias, "reward_mean": 0.1, "reward_std": 1.0}
    measured(run, "before", 0, accuracy=(0.5, 0.1), agreement=(0.0, 0.2), **figures)
    for step in range(1, 6):
        run.record(step, {"loss": 0.7, "accuracy": 0.5 + step / 10, "margin": step / 5, "mean_reward": 0.0})
    run.event("normalised", when="after", mean=0.5, std=2.0)
    measured(run, "after", 5, accuracy=(0.9, 0.05), agreement=(0.8, 0.1), **figures)
    source, text = report(run)
    assert "pairs in the right order 50% → 90%" in text and "90% (85–95%) of held-out pairs in the right order, more than by chance" in text
    assert said in text and "states a chance of 68% for its order on average, and 55% of the pairs come true: it is surer than" in text
    assert "before that their mean was 0.500 and their spread 2.00" in text and "A reward model writes no answers" in text
    assert (
        "As right as it is sure?" in text
        and "<h3>Pairs in the right order</h3>" in source
        and source.count("<svg") == source.count("<figure")
    )


def test_texts_and_what_was_known_before(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    measured(run, "before", 0, loss=(2.0, 0.1), bits_per_byte=(3.0, 0.2), replay__bits_per_byte=(0.4, 0.05))
    measured(run, "after", 9, loss=(1.0, 0.1), bits_per_byte=(1.0, 0.2), replay__bits_per_byte=(0.45, 0.05))
    text = report(run)[1]
    assert "Held-out text of the new kind is predicted better than before: 3.00 (2.80 to 3.20) → 1.00 (0.80 to 1.20) bits" in text
    assert "The replayed text: 0.400 (0.350 to 0.450) → 0.450 (0.400 to 0.500) bits per byte; the intervals overlap" in text


def test_a_proxy_that_rises_alone_is_named(tmp_path: Path) -> None:
    specs = [{"name": "learned", "path": "learned", "gold": False}, {"name": "judge", "path": "judge", "gold": True}]
    run = Run.create(tmp_path, "tiny", "", {"name": "tiny", "rewards": specs}, {})
    for name, step, learned in (("before", 0, 0.1), ("after", 9, 0.9)):
        rows = [{"prompt_id": "p", "prompt": "p", "answer": None, "response": "r", "correct": False, "num_tokens": 1}]
        figures = {"pass@1": interval(0.4, 0.1), "reward": interval(0.4, 0.1), "rewards/judge": interval(0.4, 0.1)}
        about = {"name": name, "step": step, "num_prompts": 1, "num_samples": 1}
        run.write_eval(name, step, {**about, **figures, "rewards/learned": interval(learned, 0.05)}, rows)
    text = report(run)[1]
    assert "What it is trained on rose (learned), and of the gold reward (judge) no gain can be claimed" in text
    assert "reward learned 0.100 (0.050 to 0.150) 0.900 (0.850 to 0.950)" in text and "have become likelier" not in text


@pytest.mark.parametrize(
    ("kind", "row", "said"),
    [
        ("pairs", {"chosen": "a", "rejected": "b", "rewards": [1.0, 0.0]}, "chosen · reward 1 a rejected · reward 0 b"),
        (
            "rankings",
            {"responses": ["b", "a", "c"], "ranking": [2, 1, 2], "rewards": [0.5, 2.0, 0.5]},
            "rank 1 · reward 2 a rank 2 · reward 0.5 b rank 2 · reward 0.5 c",
        ),
        ("best", {"completion": "a", "reward": 1.0}, "best · reward 1 a"),
    ],
)
def test_a_collection(tmp_path: Path, kind: str, row: dict[str, Any], said: str) -> None:
    settings = {"kind": kind, "num_prompts": 40, "prompts_per_step": 16}
    run = Run.create(tmp_path, "tiny", "", {"name": "tiny", "collect": settings}, {})
    assert "rows collected 0" in report(run)[1]
    for step, num_rows in ((1, 10), (2, 24), (3, 30)):
        run.record(step, {"reward": 0.5, "reward_std": 0.1, "rows": float(num_rows), "tokens_sampled": 10.0})
    prompts: list[Any] = [f"asked {i}" for i in range(31)]  # one more than is recorded: a kill came between
    prompts[14] = [{"role": "user", "content": "ねこ"}, {"role": "assistant", "content": "はい"}]
    lines = "".join(json.dumps({"prompt": prompt, **row}) + "\n" for prompt in prompts)
    (run.path / "data.jsonl").write_text(lines, encoding="utf-8")
    source, text = report(run)
    assert "rows collected 30" in text and "prompts that gave a row 75% 95% interval" in text and "10 prompts gave no row" in text
    assert f"row 1 asked 0 {said} row 15 user: ねこ assistant: はい {said} row 30 asked 29 {said}" in text and "asked 30" not in text
    assert "<h3>Rows collected</h3>" in source and "not known" not in text and "shaded" not in text


def test_a_long_run_is_drawn_whole_and_small() -> None:
    values = [math.sin(step / 3000) for step in range(20_000)]
    values[777], values[15_001], values[9_000] = -5.0, 5.0, math.nan
    kept = extremes(values, 200)
    assert kept == sorted(set(kept)) and {0, 777, 9_000, 15_001} <= set(kept) and len(kept) <= 3 * 200
    assert extremes(values[:50], 200) == list(range(50))
    assert len(by_step("reward", Line(list(range(20_000)), values, [0.1] * 20_000), None)) < 100_000


def samples(prompt_id: str, right: str) -> list[dict[str, Any]]:
    """One sample for each letter of `right`: y or n."""
    return [{"prompt_id": prompt_id, "prompt": prompt_id, "response": f"{prompt_id}{i}", "correct": c == "y"} for i, c in enumerate(right)]


def test_questions_are_chosen_by_the_rule_and_shown_by_their_first_sample() -> None:
    shares = {
        "a": ("nnnn", "nyyy"),
        "b": ("yyyy", "nyyy"),
        "c": ("nnnn", "yynn"),
        "d": ("nnyn", "nnyn"),
        "e": ("nnnn", "nnnn"),
        "f": ("nnnn", "ynnn"),
    }
    before = [row for name, (right, _) in shares.items() for row in samples(name, right)] + samples("only before", "n")
    after = [row for name, (_, right) in shares.items() for row in samples(name, right)]
    shown = side_by_side(before, after)
    reasons = [
        ("rose most", "a"),
        ("rose most", "c"),
        ("rose most", "f"),
        ("in the middle", "d"),
        ("fell most", "b"),
        ("fewest right after", "e"),
    ]
    assert [(question.why, question.prompt) for question in shown] == reasons
    assert (shown[0].after.answer, shown[0].after.right, shown[0].after.num_right, shown[0].after.num_samples) == ("a0", False, 3, 4)
    assert side_by_side(before, samples("other", "y")) == []


@pytest.mark.parametrize(
    ("response", "thought", "answer"),
    [
        ("<think> a\n</think>\nb ", "a", "b"),
        ("<think></think>b", "", "b"),
        ("a</think>b", "a", "b"),
        ("just b", None, "just b"),
        ("<think>a", "a", ""),
    ],
)
def test_thought_and_answer_are_told_apart(response: str, thought: str | None, answer: str) -> None:
    row = {"prompt_id": "p", "prompt": "p", "response": response, "correct": True}
    (question,) = side_by_side([row], [row])
    assert (question.after.thought, question.after.answer) == (thought, answer)


def test_long_texts_are_cut_and_say_so() -> None:
    row = {"prompt_id": "p", "prompt": "p", "response": "x" * 5000, "correct": True}
    assert side_by_side([row], [row])[0].before.answer.endswith("x … (3,500 more characters)")


def test_what_is_trained_on_and_the_gold_are_drawn_over_the_root_of_kl(tmp_path: Path) -> None:
    """KL an answer: as PPO tells it, or a token's times the answer's length; steps that lack one of the three are left out."""
    assert [kl_of(row) for row in ({"objective/kl": 4.0, "kl": 9.0}, {"kl": 0.5, "completions/mean_length": 8.0}, {"kl": 1.0}, {})] == [
        4.0, 4.0, None, None,
    ]  # fmt: skip
    rewards = [{"name": "proxy", "gold": False, "path": "my.py:proxy"}, {"name": "exact", "gold": True, "path": "exact"}]
    for steps, drawn in ((9, 1), (1, 0)):
        run = Run.create(tmp_path, f"tiny{steps}", "", {"rewards": rewards}, {})
        for step in range(1, steps + 1):
            run.record(step, {"reward": step / 10, "rewards/exact/mean": step % 5 / 10, "objective/kl": float(step)})
        assert report(run)[0].count("Reward and exact over √KL</h3>") == drawn
