"""Choosing by a proxy: the mean of the best of n, its KL, the laws' fits, and the pairs that a proxy learns from, by hand numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ikusei.reproduce.proxies import kl_of_best, law, of_best, pairs
from ikusei.reproduce.simulated_raters import gold, hurried
from ikusei.search.best_of_n import kl_of_best as formula
from ikusei.types import Group, Prompt, Response

ASKED = Prompt("p", (1,), "ねこはすきですか？", asked="ねこはすきですか？")


def test_the_best_of_n_is_chosen_by_the_proxy_and_counted_by_the_gold() -> None:
    values = np.array([[0.1, 0.5, 0.2, 0.9, 0.4]])
    assert of_best(values, values, (1, 2, 3, 4, 5)) == pytest.approx([0.42, 0.61, 0.73, 0.82, 0.9])
    assert of_best(values, -values, (1, 5)) == pytest.approx([0.42, 0.1])
    two = np.array([[0.0, 1.0], [4.0, 8.0]])
    assert of_best(two, np.array([[1.0, 2.0], [2.0, 1.0]]), (2,)) == pytest.approx([(1 + 4) / 2])


def test_the_kl_of_the_best_is_less_than_the_formula_where_answers_are_likely() -> None:
    p = np.repeat([0.5, 0.3, 0.2], [1000, 600, 400])
    order = np.repeat([0.0, 1.0, 2.0], [1000, 600, 400])
    exact = 0.25 * math.log(0.5) + 0.39 * math.log(1.3) + 0.36 * math.log(1.8)
    assert kl_of_best(order[None], np.log(p)[None], 2) == pytest.approx(exact, abs=1e-3)
    assert exact < formula(2)
    rare = np.full((1, 1000), -25.0)
    assert kl_of_best(np.arange(1000.0)[None], rare, 8) == pytest.approx(formula(8), rel=0.01)


def test_the_laws_are_found_again() -> None:
    d = np.array([0.0, 0.4, 0.9, 1.5, 2.1])
    assert law(d, d * (1 - 0.3 * d)) == pytest.approx((1, 0.3, 1))
    rl = d * (1 - 0.3 * np.log(np.maximum(d, 1e-9)))
    assert law(d, rl, rl=True) == pytest.approx((1, 0.3, 1))
    assert law(d, rl)[2] < 0.9999


def test_pairs_are_of_neighbours_and_labels_can_be_flipped() -> None:
    texts = ["ねこがすきです。", "ねこがきらいです。", "ねこがこわいよ。", "ねこがとてもかわいいですね。" + "いつも。" * 4]
    group = Group(ASKED, tuple(Response((0,), (True,), text) for text in texts))
    rows = pairs([group], gold)
    assert {(row["chosen"], row["rejected"]) for row in rows} == {(texts[0], texts[1]), (texts[2], texts[3])}
    assert {row["chosen"] for row in pairs([group], gold, flipped=1.0)} == {texts[1], texts[3]}
    many = pairs([group] * 400, gold, flipped=0.25, seed=3)
    assert 0.2 < sum(row["chosen"] in (texts[1], texts[3]) for row in many) / len(many) < 0.3


def test_people_like_kind_words_and_some_detail() -> None:
    kind, unkind = "ねこがすきです。", "ねこがきらいです。"
    assert gold(ASKED, kind) == pytest.approx(2.5 + 8 / 6) and gold(ASKED, unkind) == pytest.approx(0.5 + 9 / 6)
    assert gold(ASKED, "あ" * 20) == pytest.approx(20 / 6) and gold(ASKED, "あ" * 26) == pytest.approx(20 / 6 - 3)
    assert hurried(ASKED, kind) == gold(ASKED, kind) and hurried(ASKED, "あ" * 26) == pytest.approx(26 / 6)
