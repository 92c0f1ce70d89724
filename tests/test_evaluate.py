"""What an evaluation measures: choices among answers by brute force, the greedy answer, and chance baselines by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import ClassVar

import pytest

from ikusei.cli.main import main
from ikusei.eval_metrics import answers
from ikusei.eval_metrics.answers import Answers
from ikusei.eval_metrics.choosing import answered
from ikusei.eval_metrics.metric import measure
from ikusei.guard.outcomes import RewardSpec
from ikusei.guard.workers import RewardWorkers
from ikusei.intervals import mean_interval
from ikusei.loops.evaluate import EvalResult, EvalSettings, evaluate
from ikusei.loops.few_shot import seen_answers
from ikusei.loops.steps import RewardsFailed
from ikusei.report.eval_charts import curves_of, fifths, pictures
from ikusei.run.read import evaluation
from ikusei.samplers.load import load_sampler
from ikusei.samplers.local import LocalSampler
from ikusei.tasks.arithmetic import Arithmetic
from ikusei.text.chat import render
from ikusei.types import Example, Group, Prompt, Response, RewardResult, Sampling, Split

SAMPLES = 5
REWARDS = """
def long(prompt, response, **columns):
    return min(len(response), 90) / 90
"""


@dataclass(frozen=True)
class Letters:
    """Answers a, a, a, b, c in training rows."""

    rewards: ClassVar[tuple[str, ...]] = ()

    def num_rows(self, split: Split) -> int:
        return 5

    def row(self, split: Split, index: int) -> Example:
        return Example(f"{split} {index}", columns={"answer": "aaabc"[index]})


def test_chance_baselines_by_hand() -> None:
    """Asked b and d: b is a fifth of the answers and the second commonest; nobody ever answers d."""
    found = measure(answers.FIGURES, answered_rightly(seen_answers(Letters()), "b", "d"))
    assert [found[f"guess@{k}"].value for k in (1, 2, 4)] == pytest.approx([0.1, 0.18, (1 - 0.8**4) / 2])
    assert [found[f"commonest@{k}"].value for k in (1, 2, 4)] == [0.0, 0.5, 0.5]
    assert "guess@1" not in measure(answers.FIGURES, answered_rightly(seen_answers(Letters()), "b", None))
    assert "guess@1" not in measure(answers.FIGURES, answered_rightly((), "b"))


def answered_rightly(seen: tuple[str, ...], *gold: str | None) -> Answers:
    """Four right answers to a prompt for each gold answer; None: its row has none."""
    columns = [{} if answer is None else {"answer": answer} for answer in gold]
    prompts = [Prompt(f"p{i}", (1,), "asked", each) for i, each in enumerate(columns)]
    groups = [Group(prompt, (Response((1,), (True,), "said"),) * 4) for prompt in prompts]
    return Answers(groups, [[1.0] * 4 for _ in groups], [], bool, [], [], seen)


@pytest.mark.parametrize("failed", [1, 2])
def test_an_evaluation_ends_where_most_greedy_answers_cannot_be_scored(sampler: LocalSampler, failed: int) -> None:
    """Three sums with two samples each, all scored; of the greedy answers the last one or two are not, and the first is right."""
    prompts = [render(sampler.tokenizer, Arithmetic().row("test", index)) for index in range(3)]

    def judge(groups: Sequence[Group]) -> list[list[dict[str, RewardResult]]]:
        bad = {prompt.id for prompt in prompts[3 - failed :]}
        lost = [group.prompt.id in bad and len(group.responses) == 1 for group in groups]
        said = [RewardResult(None, "error", 0.0, "unread") if no else RewardResult(1.0, "ok") for no in lost]
        return [[{"it": each}] * len(group.responses) for group, each in zip(groups, said, strict=True)]

    with RewardWorkers([RewardSpec("it", "exact")], in_process={"it": judge}) as workers:
        made = lambda greedy: evaluate(sampler, prompts, workers, EvalSettings(3, 2, greedy=greedy), Sampling(max_tokens=4), 1)  # noqa: E731
        assert made(False).results["failed"] == 0.0
        if failed == 1:
            assert made(True).results["greedy"] == mean_interval([1.0, 1.0])
        else:
            with pytest.raises(RewardsFailed, match=r"2 of 3 responses \(67%"):
                made(True)


@pytest.fixture(scope="module")
def sampler() -> LocalSampler:
    return load_sampler("seedling")


@pytest.fixture(scope="module")
def made(sampler: LocalSampler, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EvalResult]:
    """Six sums, paid for length and judged by the exact answer."""
    file = tmp_path_factory.mktemp("rewards") / "paid.py"
    file.write_text(REWARDS)
    prompts = [render(sampler.tokenizer, Arithmetic().row("test", index)) for index in range(6)]
    specs = [RewardSpec("long", f"{file}:long"), RewardSpec("exact", "exact", gold=True)]
    with RewardWorkers(specs, num_workers=1) as workers:
        yield evaluate(sampler, prompts, workers, EvalSettings(6, SAMPLES), Sampling(max_tokens=64), seed=1)


def by_prompt(made: EvalResult, greedy: bool = False) -> list[list[dict[str, object]]]:
    rows = [row for row in made.rows if row["greedy"] is greedy]
    return [[row for row in rows if row["prompt_id"] == name] for name in dict.fromkeys(row["prompt_id"] for row in rows)]


@pytest.mark.parametrize("k", [2, 4, SAMPLES])
def test_votes_and_best_of_k_are_means_over_subsets(made: EvalResult, k: int) -> None:
    """Of every subset of k: the share right among the commonest answers, and among those that the reward trained on likes best."""
    votes, best = [], []
    for rows in by_prompt(made):
        sets = list(combinations(rows, k))
        votes.append(fmean(share(one, [Counter(said(r) for r in one)[said(r)] * bool(said(r)) for r in one]) for one in sets))
        best.append(fmean(share(one, [min(len(str(r["response"])), 90) / 90 for r in one]) for one in sets))
    assert made.results[f"maj@{k}"].value == pytest.approx(fmean(votes))
    assert made.results[f"bon@{k}"].value == pytest.approx(fmean(best))
    assert max(made.results[f"{name}@{k}"].value for name in ("maj", "bon")) <= made.results[f"pass@{k}"].value
    assert made.results["pass@1"].value not in (0, 1), "else nothing is told apart"


def said(row: dict[str, object]) -> str:
    return answered(str(row["response"]))


def share(rows: tuple[dict[str, object], ...], values: list[float]) -> float:
    return fmean(bool(row["correct"]) for row, value in zip(rows, values, strict=True) if value == max(values))


def test_the_greedy_answer_is_asked_for_once(made: EvalResult, sampler: LocalSampler) -> None:
    greedy = [row for [row] in by_prompt(made, greedy=True)]
    prompts = [render(sampler.tokenizer, Arithmetic().row("test", index)) for index in range(6)]
    expected = {g.prompt.id: g.responses[0].text for g in sampler.sample(prompts, 1, Sampling(top_k=1, max_tokens=64), 99)}
    assert {row["prompt_id"]: row["response"] for row in greedy} == expected
    assert made.results["greedy"].value == fmean(bool(row["correct"]) for row in greedy)


def test_the_pictures_show_both_models(made: EvalResult) -> None:
    one = evaluation("seedling", 0, {k: vars_of(v) for k, v in made.results.items()}, made.rows)
    model = curves_of("seedling", one)
    assert sum(count for *_, count in fifths(model)) == 6
    titles = [picture.title for picture in pictures([model, model])]
    assert titles == [
        "Right within k tries (pass@k)", "One answer chosen among k", "Prompt by prompt",
        "Is the greedy answer right where most samples are?",
    ]  # fmt: skip
    assert [picture.title for picture in pictures([model])] == [title for title in titles if title != "Prompt by prompt"]


def vars_of(value: object) -> object:
    return {name: getattr(value, name) for name in ("value", "low", "high")} if hasattr(value, "low") else value


def test_eval_writes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = Path(__file__).parents[1] / "recipes" / "quickstart.yaml"
    with pytest.raises(SystemExit) as ended:
        main(["eval", str(recipe), "eval.num_prompts=3", "eval.num_samples=4", "--out", str(tmp_path / "page.html")])
    assert ended.value.code == 0 and "maj@4" in capsys.readouterr().out
    page = (tmp_path / "page.html").read_text("utf-8")
    assert page.count("<svg") == 3 and "seedling" in page and "guess@4" in page and "#00000" not in page
