"""What claims about reinforcement learning compute themselves, with hand numbers."""

from __future__ import annotations

from math import comb

import pytest

from ikusei.reproduce import expressions
from ikusei.reproduce.claims import cold_start, crossing, dynamic_sampling, importance_sampling, length_bias, steps_tradeoff, zero_curve
from ikusei.types import Prompt


@pytest.mark.parametrize(("question", "answer"), [("7-2*3=", 1), ("7*2-3=", 11), ("2-7+1=", -4), ("2*3*4=", 24), ("9-4-3=", 2)])
def test_products_go_before_sums(question: str, answer: int) -> None:
    assert expressions.worth(*question[:5]) == answer


def test_rows_are_of_their_split_and_of_their_start() -> None:
    task, later = expressions.Expressions(shown=True), expressions.Expressions(shown=True, start=5)
    assert task.row("train", 5) == later.row("train", 0) != task.row("train", 0) and task.row("test", 3) == later.row("test", 3)
    train, test = ({task.row(split, i).prompt for i in range(200)} for split in ("train", "test"))
    assert not train & test and len(test) == 200
    row = task.row("train", 1)
    assert isinstance(row.prompt, str) and row.responses == (str(eval(row.prompt.removesuffix("="))),)


def test_curves_cross_where_the_gain_is_lost() -> None:
    flat = [0.5] * len(crossing.KS)
    found = {"pass": {"base": flat, "rl": [0.6, 0.6, 0.55, 0.45, 0.4, 0.4, 0.4, 0.3], "more": flat}}
    assert crossing.crossing(found) == pytest.approx(4 * 2**0.5)
    assert crossing.gain(found, "rl", 128) == pytest.approx(-0.2) and crossing.gain(found, "rl", 1) == pytest.approx(0.1)
    assert crossing.pass_at([128, 0, 64, 0], 1) == pytest.approx(0.375)


def test_groups_teach_as_often_as_draws_without_putting_back_say() -> None:
    assert cold_start.teaches(0, 64) == cold_start.teaches(64, 64) == 0
    assert cold_start.teaches(3, 16) == pytest.approx(1 - comb(13, 8) / comb(16, 8))
    assert cold_start.furthest({"share": [0.0, 0.5, 0.8], "forecast": [0.0, 0.53, 0.79]}) == pytest.approx(0.03)


def test_a_stage_may_go_against_the_claim_at_either_end() -> None:
    found = {"pass": {"1": [0.1, 0.2, 0.15, 0.3], "128": [0.9, 0.8, 0.85, 0.85]}}
    assert steps_tradeoff.violations(found) == 2 and steps_tradeoff.left(found) == pytest.approx(0.6)


def test_the_vote_follows_the_commonest_answer() -> None:
    rows = [{"response": "7", "correct": False}] * 3 + [{"response": "<think>x</think>9", "correct": True}] * 13
    assert zero_curve.voted(rows) == 1 and zero_curve.voted([{**row, "correct": not row["correct"]} for row in rows]) == 0


def test_the_target_is_reached_on_held_out_prompts() -> None:
    every, last = dynamic_sampling.EVERY, dynamic_sampling.STEPS // dynamic_sampling.EVERY
    found = {
        "plain": {"right": [0.1] * (last + 1), "answers": [2] * dynamic_sampling.STEPS},
        "dynamic": {"right": [0.11, 0.119, 0.13, *[0.1] * (last - 2)], "answers": [3] * dynamic_sampling.STEPS},
    }
    assert dynamic_sampling.needed(found, "plain") == dynamic_sampling.STEPS + every
    assert dynamic_sampling.needed(found, "dynamic") == 2 * every and dynamic_sampling.cost(found, "dynamic") == 3 * 2 * every


def test_wrong_answers_grow_against_what_they_were() -> None:
    found = {
        "base": {"wrong": 8.0, "error": 0.1},
        "sequence": {"wrong": 12.0, "error": 0.3},
        "token": {"wrong": 7.0, "error": 0.4},
    }
    assert length_bias.growth(found, "sequence") == pytest.approx(0.5) and length_bias.growth(found, "token") == pytest.approx(-0.125)
    assert length_bias.apart(found) == pytest.approx(10)
    asked = Prompt("p", (1,), "4817?")
    assert length_bias.first(asked, "8...", answer="8") == 1 and length_bias.first(asked, ".8", answer="8") == 0


def test_errors_are_of_the_mean() -> None:
    assert importance_sampling.errors({"along": {"truncated": [1.0, 2.0, 3.0, 2.0]}}, "truncated") == pytest.approx(2 / (2 / 3) ** 0.5 * 2)
