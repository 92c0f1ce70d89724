"""Two models on the same prompts: paired differences, who alone solves what, where the curves cross, and what cannot be compared."""

from __future__ import annotations

import json
import random
import re
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest

from ikusei.cli.main import app
from ikusei.intervals import mean_interval, pass_at_k
from ikusei.report.eval_charts import share_right
from ikusei.run.comparison import Experiment, compare, crossing, differing, paired, read_experiment, together
from ikusei.run.folder import Run
from ikusei.run.read import evaluation

HOW: dict[str, Any] = {"sampling.temperature": 1.0, "eval.num_samples": 4, "the chat template": "{{ a }}"}


def experiment(name: str, right: dict[str, list[int]], **how: Any) -> Experiment:
    rows = {prompt: tuple(map(bool, each)) for prompt, each in right.items()}
    return Experiment(name, rows, {prompt: 10.0 + len(prompt) for prompt in right}, {prompt: f"{prompt}?" for prompt in right}, HOW | how)


BASE = experiment("base", {"a": [1, 0, 0, 0], "b": [1, 0, 0, 0], "c": [0, 1, 0, 0], "d": [0, 0, 0, 0]})
TUNED = experiment("tuned", {"a": [1, 1, 1, 1], "b": [1, 1, 0, 1], "c": [0, 0, 0, 0], "d": [0, 0, 0, 0]})


def test_by_hand() -> None:
    """pass@1 of 1/4, 1/4, 1/4, 0 against 1, 3/4, 0, 0: gains 3/4, 1/2, -1/4, 0. At k = 4 all that is ever right counts: 0, 0, -1, 0."""
    found = compare(TUNED, BASE)
    assert sorted(found.gains) == [1, 2, 4]
    assert found.gains[1].value == pytest.approx(0.25) and found.gains[4].value == -0.25
    assert found.gains[2].value == pytest.approx(fmean([0.5, 0.5, -0.5, 0]))
    assert (found.only_one, found.only_other, found.both, found.neither) == ((), ("c?",), 2, 1)
    assert found.gains[1].low < 0.25 < found.gains[1].high
    assert found.length.value == 0
    half = found.gains[2].value  # 0.125 at k = 2, -0.25 at k = 4: a third of the way over log k
    assert found.crossing == pytest.approx(2 * 2 ** (half / (half + 0.25)))
    fewer = compare(*(experiment(name, {"a": right}) for name, right in (("one", [1, 0, 0]), ("other", [0, 0, 0]))))
    assert {k: gain.value for k, gain in fewer.gains.items()} == pytest.approx({1: 1 / 3, 2: 2 / 3, 3: 1})
    assert compare(BASE, TUNED).gains[1].value == -0.25 and compare(BASE, TUNED).crossing is None


def test_pairing_takes_out_what_is_hard_for_both() -> None:
    """Prompts of all difficulties, one model 0.1 better on each: the paired interval lies above 0, where those of each alone overlap."""
    chance = random.Random(0)
    hard = {str(n): chance.random() * 0.9 for n in range(64)}
    better = {prompt: p + 0.1 + chance.gauss(0, 0.02) for prompt, p in hard.items()}
    gain, alone = paired(better, hard), [mean_interval(list(each.values())) for each in (hard, better)]
    assert 0.04 < gain.low < 0.1 < gain.high < 0.16 and alone[0].high > alone[1].low


@pytest.mark.parametrize(("share", "gain"), [(0.05, 1.0), (0.03, 0.8), (1.0, 0.05), (0.5, 0.3)])
def test_the_interval_of_a_difference_covers(share: float, gain: float) -> None:
    """At least; also where few prompts make the whole gain, which most samples of 64 show two or three times, and some not at all."""
    rng, held = np.random.default_rng(3), 0
    for _ in range(300):
        base = rng.binomial(16, rng.uniform(0, 1 - gain, 64)) / 16
        drawn = {str(n): value for n, value in enumerate(base)}
        better = {str(n): value + gain * (rng.random() < share) for n, value in enumerate(base)}
        found = paired(better, drawn)
        held += found.low <= share * gain <= found.high
    assert held / 300 >= 0.93


@pytest.mark.parametrize("shares", [True, False])
def test_the_interval_covers_no_more_than_it_says(shares: bool) -> None:
    """600 experiments of 64 prompts with normal gains, where nothing has to be added for what was not seen: 95 %, and 2 % for chance."""
    rng, held, none = np.random.default_rng(5), 0, {str(n): 0.0 for n in range(64)}
    for _ in range(600):
        found = paired({str(n): float(gain) for n, gain in enumerate(rng.normal(0.1, 0.6, 64))}, none, shares)
        held += found.low <= 0.1 <= found.high
    assert 0.93 <= held / 600 <= 0.97


def test_the_ends_of_an_interval() -> None:
    """Gains of 3/4, 1/2, -1/4, 0, and the two pseudo-prompts: of all 6^6 draws 2.5 % lie below -9/24 and above 16/24 (5 %: -7, 14)."""
    gains = {"a": 0.75, "b": 0.5, "c": -0.25, "d": 0.0}
    every = sorted(sum(drawn) for drawn in product([18, 12, -6, 0, 24, -24], repeat=6))
    ends = [every[round(share * len(every))] / 6 for share in (0.025, 0.975)]
    assert ends == [-9, 16]
    found = paired(gains, dict.fromkeys(gains, 0.0))
    assert found.value == 0.25
    assert [found.low, found.high] == pytest.approx([-9 / 24, 16 / 24], abs=1.01 / 24), "the means lie 1/24 apart"


def test_no_difference_is_not_certain() -> None:
    same = paired({"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 1.0})
    assert same.value == 0 and same.low < 0 < same.high


def test_curves_may_meet_or_not() -> None:
    assert crossing({1: 0.1, 2: -0.001, 4: 0.1, 8: 0.2}) is None, "it is ahead again"
    assert crossing({1: 0.1, 2: -0.1, 4: 0.1, 8: -0.1}) == pytest.approx(4 * 2**0.5)
    assert crossing({1: 0.2, 2: 0.1, 4: 0.0}) == pytest.approx(4)
    assert crossing({1: 0.2, 2: 0.1}) is None and crossing({1: -0.1, 2: 0.1}) is None and crossing({}) is None


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (experiment("o", {"a": [1], "b": [1], "c": [1], "e": [1]}), "3 prompts are the same, of 4 and 4"),
        (experiment("o", {key: [1] for key in "abcd"}, **{"sampling.temperature": 0.6}), r"sampling\.temperature \(1\.0 and 0\.6\) differ"),
        (experiment("o", {key: [1] for key in "abcd"}, **{"the chat template": "{{ b }}"}), "the chat template differ"),
    ],
)
def test_what_was_measured_differently_is_refused_and_named(other: Experiment, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        compare(BASE, other)
    assert differing(HOW, dict(HOW)) is None


def run(folder: Path, right: list[list[bool]], temperature: float = 1.0) -> Path:
    made = Run.create(folder.parent, "r", "", {"sampling": {"temperature": temperature}, "eval": {"num_samples": 2}}, {}, folder)
    rows = [
        {"prompt_id": str(p), "prompt": f"{p}?", "answer": "1", "response": "1", "total": 1.0, "correct": yes, "num_tokens": 3 + p}
        for p, each in enumerate(right)
        for yes in each
    ]
    made.write_eval("after", 7, {"name": "after", "step": 7, "num_samples": 2}, rows)
    return folder


def test_seeds_are_read_as_one_experiment(tmp_path: Path) -> None:
    first, second = run(tmp_path / "a", [[True, False], [False, False]]), run(tmp_path / "b", [[True, True], [False, True]])
    found = read_experiment("both", [first, second])
    assert found.right == {"0": (True, False, True, True), "1": (False, False, False, True)}
    assert found.pass_at(2) == {"0": pass_at_k(4, 3, 2), "1": pass_at_k(4, 1, 2)} and found.tokens == {"0": 3, "1": 4}
    assert found.samples == 4
    with pytest.raises(ValueError, match="its runs are no seeds of one experiment"):
        read_experiment("both", [first, run(tmp_path / "c", [[True], [True]], 0.5)])
    with pytest.raises(ValueError, match="no samples of an evaluation before training"):
        read_experiment("one", [first], "before")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = str(run(tmp_path / "a", [[True, True], [False, True]])), str(run(tmp_path / "b", [[False, False], [False, True]]))
    assert app(["compare", one, other, "--json"], result_action="return_value") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["gains"]["1"]["value"] == 0.5 and found["only_one"] == ["0?"]
    assert app(["compare", one, other, "--out", str(tmp_path / "page.html")], result_action="return_value") == 0
    page = re.sub(r"<[^>]+>", " ", (shown := (tmp_path / "page.html").read_text("utf-8")).partition("<body>")[2])
    assert shown.count("<svg") == 2 and "2 held-out prompts, 2 samples of each " in page
    assert re.search(r"pass@1\s+25%.*\s+75%.*\s+\+50 points \([+−]\d+ to \+\d+\)", page), "a gain and its interval, side by side"
    assert re.search(r"Only a solves \(1\)[^B]*0\?", page) and "Only b solves" not in page
    assert app(["compare", f"{one},{other}", other], result_action="return_value") == 0
    with pytest.raises(ValueError, match="got 3 models"):
        app(["compare", one, other, one], result_action="return_value")
    with pytest.raises(ValueError, match="no samples of an evaluation before"):
        app(["compare", one], result_action="return_value")


def test_answers_whose_reward_failed_are_left_out() -> None:
    """Right, right, failed, failed: all that is known is right. Of a prompt without a judged answer nothing is compared."""
    row = {"prompt": "a?", "num_tokens": 3}
    made = [{"prompt_id": "a", "correct": each is not None, "total": each, **row} for each in (1.0, 1.0, None, None)]
    made += [{"prompt_id": "b", "correct": False, "total": None, **row}]
    one = together("one", [evaluation("after", 1, {}, made)], {})
    assert one.right == {"a": (True, True)} and set(one.asked) == {"a", "b"}
    other = together("other", [evaluation("before", 0, {}, [{**each, "total": 0.0, "correct": False} for each in made])], {})
    assert compare(one, other).gains[1].value == 1.0 and share_right(made) == {"a": 1.0}


def test_samples_of_older_versions_all_count() -> None:
    """They have no total: whether an answer is right is all that was stored."""
    rows = [{"prompt_id": "a", "prompt": "a?", "correct": yes, "num_tokens": n} for n, yes in ((3, True), (8, False), (4, False))]
    found = together("one", [evaluation("after", 1, {}, rows)], {})
    assert found.right == {"a": (True, False, False)} and found.tokens == {"a": 5}


def test_other_judges_are_not_compared_and_unknown_ones_are_trusted() -> None:
    exact, format = [{"path": "exact"}], [{"path": "think_format"}]
    assert differing({"the judges": exact}, {"the judges": format}) == "the judges differ"
    assert (
        differing({"the judges": exact}, {"the judges": None}) is None and differing({"the judges": exact}, {"the judges": exact}) is None
    )
