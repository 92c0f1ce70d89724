"""Choosing among answers: the invariants that tie the methods together, and each one's own numbers by hand."""

from __future__ import annotations

import itertools
import math
import random
from statistics import fmean

import pytest

from ikusei.eval_metrics.choosing import answered, best_right_at, choose, right_at, share_right
from ikusei.intervals import best_of, pass_at_k
from ikusei.search.best_of_n import BestOfN, kl_of_best
from ikusei.search.mbr import MBR, diverse, overlap, same_answer, utilities
from ikusei.search.regularised import Regularised
from ikusei.search.vote import Vote, decided, error_bound
from ikusei.types import Response, Score


def said(text: str, total: float | None = None, logprob: float = -1.0, tokens: int = 2) -> Response:
    return Response((1,) * tokens, (True,) * tokens, text, logprobs=(logprob / tokens,) * tokens, score=Score(total))


def world(seed: int, n: int = 12) -> tuple[list[Response], list[bool]]:
    """Answers of which 7 is right, rewards that are often mistaken."""
    chance = random.Random(seed)
    answers = chance.choices(["7", "8", "9", ""], weights=[4, 3, 2, 1], k=n)
    rows = [
        said(f"<think>{chance.random():.3f}</think>{each}", max(0.0, (each == "7") + chance.gauss(0, 0.8)), chance.uniform(-9, -1), 3 + i)
        for i, each in enumerate(answers)
    ]
    return rows, [each == "7" for each in answers]


@pytest.mark.parametrize("seed", range(8))
def test_mbr_with_exact_match_is_the_majority_vote(seed: int) -> None:
    rows, _ = world(seed)
    by_vote, by_mbr = Vote().values(rows), MBR(same_answer).values(rows)
    assert by_mbr == pytest.approx([votes / len(rows) for votes in by_vote])
    assert choose(Vote(), rows) is choose(MBR(same_answer), rows)


@pytest.mark.parametrize("seed", range(8))
def test_nothing_beats_pass_at_n_and_nothing_is_below_never(seed: int) -> None:
    rows, right = world(seed)
    for chooser in (Vote(), Vote(weighted=True), BestOfN(), MBR(), MBR(model_based=True), *(Regularised(by, 0.3) for by in BY)):
        for n in (1, 3, len(rows)):
            at_most = pass_at_k(len(rows), sum(right), n)
            assert 0 <= right_at(chooser, rows, right, n, draws=220) <= at_most + 1e-9


BY = ("kl", "wasserstein", "length")


@pytest.mark.parametrize("seed", range(4))
def test_alpha_goes_from_best_of_n_to_what_holds_back(seed: int) -> None:
    rows, _ = world(seed)
    for by in BY:
        assert choose(Regularised(by, 0.0), rows) is choose(BestOfN(), rows)
    assert choose(Regularised("wasserstein", 1e9), rows) is choose(MBR(), rows)
    likeliest = max(rows, key=lambda row: math.fsum(row.logprobs or ()))
    assert choose(Regularised("kl", 1e9), rows) is likeliest
    assert choose(Regularised("length", 1e9), rows) is max(rows, key=lambda row: len(row.tokens))


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_best_of_n_from_stored_samples_is_unbiased(n: int) -> None:
    """Against all subsets, with ties among the rewards; and where right is what earns most it is pass@n."""
    totals, right = [0.3, 0.9, 0.3, -1.0, 0.9], [True, False, False, True, True]
    rows = [said(str(i), total) for i, total in enumerate(totals)]
    every = [share_right([totals[i] for i in taken], [right[i] for i in taken]) for taken in itertools.combinations(range(len(totals)), n)]
    assert best_right_at(totals, right, n) == pytest.approx(fmean(every))
    assert right_at(BestOfN(), rows, right, n, draws=10) == pytest.approx(fmean(every))
    assert best_right_at([float(yes) for yes in right], right, n) == pytest.approx(pass_at_k(5, 3, n))
    assert best_of(totals, n) == pytest.approx(
        fmean(max(totals[i] for i in taken) for taken in itertools.combinations(range(len(totals)), n))
    )


def test_votes_by_hand() -> None:
    rows = [said("<think>a</think>7", 0.9), said("8", 0.5), said("<think>b</think> 7", 0.1), said("8", 0.6), said("<think>", 5.0)]
    assert Vote().values(rows) == [2, 2, 2, 2, 0], "what says nothing has no vote"
    assert choose(Vote(), rows) is rows[0], "of equals the first"
    assert Vote(weighted=True).values(rows) == pytest.approx([1.0, 1.1, 1.0, 1.1, 0.0])
    with pytest.raises(ValueError, match=r"a vote of weight -0\.5"):
        Vote(weighted=True).values([said("7", -0.5)])


def test_a_vote_is_decided_where_it_cannot_turn() -> None:
    assert decided(["7", "7", "7", "8"], left=1) and not decided(["7", "7", "7", "8"], left=2)
    assert not decided([], left=0) and error_bound([]) == 1.0
    assert error_bound(["7", "8"]) == pytest.approx(0.5), "equal counts"
    assert error_bound(["7"] * 4) == pytest.approx(0.5**5), "I_1/2(5, 1) by hand"
    assert decided(["7"] * 4, left=100, error=0.05) and not decided(["7"] * 3, left=100, error=0.05)


def test_the_bound_holds_where_answers_are_drawn_from_two() -> None:
    """Stopped at 5 %, a vote between answers of 60 and 40 % ends with the rarer one in at most so many cases, by the prior's measure."""
    chance, wrong, spent = random.Random(0), 0, 0
    for _ in range(400):
        share, drawn = chance.random(), list[str]()
        while not decided(drawn, left=400 - len(drawn), error=0.05) and len(drawn) < 400:
            drawn.append("a" if chance.random() < share else "b")
        spent += len(drawn)
        wrong += (drawn.count("a") > drawn.count("b")) != (share > 0.5)
    assert wrong / 400 <= 0.07 and spent / 400 < 60


def test_mbr_by_hand() -> None:
    """Of U = [[1, .8, .1], [.8, 1, .2], [.1, .2, 1]] the second has the largest mean; with r = (.2, .3, 1) the third wins till alpha 2."""
    table = {"a": [1, 0.8, 0.1], "b": [0.8, 1, 0.2], "c": [0.1, 0.2, 1]}
    utility = lambda one, other: table[one]["abc".index(other)]  # noqa: E731
    rows = [said("a", 0.2), said("b", 0.3), said("c", 1.0)]
    assert choose(MBR(utility), rows).text == "b"
    assert [choose(Regularised("wasserstein", alpha, utility), rows).text for alpha in (0, 1, 2, 5)] == ["c", "c", "c", "b"]
    assert utilities(["a", "c"], utility).tolist() == [[1, 0.1], [0.1, 1]]


def test_model_based_mbr_counts_a_text_once() -> None:
    """b is written twice, and weighs what the model gives it: log p of -1, -2 and -1.5."""
    rows = [said("aaaa", logprob=-1.0), said("bbbb", logprob=-2.0), said("bbbb", logprob=-2.0), said("cccc", logprob=-1.5)]
    p = [math.exp(-1), math.exp(-2), 0, math.exp(-1.5)]
    whole = sum(p)
    assert MBR(model_based=True).values(rows) == pytest.approx([p[0] / whole, p[1] / whole, p[1] / whole, p[3] / whole])


def test_diverse_takes_what_stands_for_all_and_is_unlike() -> None:
    texts = ["the cat sat", "the cat sits", "the cat sat.", "a dog ran", "the dog ran"]
    assert len({text.split()[1] for text in (texts[i] for i in diverse(texts, 2))}) == 2
    assert diverse(texts, 5) == [0, 1, 2, 3, 4] and len(diverse(texts, 1)) == 1
    assert diverse(texts, 1) == [max(range(5), key=lambda i: utilities(texts, overlap)[i].sum())]
    with pytest.raises(ValueError, match="6 of 5 texts"):
        diverse(texts, 6)


def test_what_has_no_reward_is_chosen_last_and_nothing_from_nothing() -> None:
    assert choose(BestOfN(), [said("7"), said("8", -3.0)]).text == "8"
    with pytest.raises(ValueError, match="no response"):
        choose(BestOfN(), [])
    with pytest.raises(ValueError, match="alpha=-1"):
        Regularised("kl", -1)
    with pytest.raises(ValueError, match="n=4 of 3"):
        right_at(BestOfN(), [said("7", 1.0)] * 3, [True] * 3, 4)
    assert answered("<think>3+4</think> 7 \n") == "7"


def test_the_kl_of_the_best() -> None:
    """ALGORITHMS' golden numbers."""
    assert [round(kl_of_best(n), 6) for n in (2, 4, 8, 16, 64)] == [0.193147, 0.636294, 1.204442, 1.835089, 3.174508]
