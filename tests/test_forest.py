"""The forest: what is laid out where, what points to what, and how it is cut."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from ikusei.forest import Denominators, Forest, Tree, count, plant
from ikusei.types import Group, Prompt, Response


def response(tokens: list[int], mask: list[bool] | None = None, logprobs: bool = False) -> Response:
    said = tuple(-0.1 * token for token in tokens) if logprobs else None
    return Response(tuple(tokens), tuple(mask or [True] * len(tokens)), "", said)


def group(name: str, root: list[int], *responses: Response, **more: object) -> Group:
    return replace(Group(Prompt(name, tuple(root), name), responses), **more)


# p0 p1 p2 | a0 a1 a2 | b0 b1 | c0 c1 c2, and a second tree behind it
LEAVES = (response([20, 21, 22], [True, False, True]), response([30, 31]), response([40, 41, 42], [False, True, True]))
FIRST = group("first", [10, 11, 12], *LEAVES, weight=2.0)
SECOND = group("second", [50, 51], response([60]), response([70, 71, 72, 73], [True, True, False, False]), weight=0.5)


@pytest.fixture
def forest() -> Forest:
    return plant([FIRST, SECOND], temperature=0.7)


def test_what_lies_where(forest: Forest) -> None:
    assert forest.tokens_N.tolist() == [10, 11, 12, 20, 21, 22, 30, 31, 40, 41, 42, 50, 51, 60, 70, 71, 72, 73]
    assert forest.position_N.tolist() == [0, 1, 2, 3, 4, 5, 3, 4, 3, 4, 5, 0, 1, 2, 2, 3, 4, 5]
    assert forest.leaf_N.tolist() == [-1, -1, -1, 0, 0, 0, 1, 1, 2, 2, 2, -1, -1, 3, 4, 4, 4, 4]
    assert forest.trees == (Tree(0, 3, (3, 2, 3)), Tree(11, 2, (1, 4)))
    assert forest.group_R.tolist() == [0, 0, 0, 1, 1]
    assert forest.last_R.tolist() == [5, 7, 10, 13, 17]
    assert forest.weight_G.tolist() == [2.0, 0.5]
    assert forest.temperature_R.tolist() == pytest.approx([0.7] * 5)


def test_what_is_scored_and_by_which_row(forest: Forest) -> None:
    """A root's last row predicts each leaf's first token."""
    assert forest.target_M.tolist() == [20, 22, 30, 31, 41, 42, 60, 70, 71]
    assert forest.predicts_M.tolist() == [2, 4, 2, 6, 8, 9, 12, 12, 14]
    assert forest.response_M.tolist() == [0, 0, 1, 1, 2, 2, 3, 4, 4]
    assert forest.position_M.tolist() == [3, 5, 3, 4, 4, 5, 2, 2, 3]
    assert forest.weight_M.tolist() == [2.0] * 6 + [0.5] * 3
    assert forest.length_R.tolist() == [2, 2, 2, 1, 2]


def test_sums(forest: Forest) -> None:
    x_M = torch.arange(1.0, 10.0)
    assert forest.sum_R(x_M).tolist() == [3, 7, 11, 7, 17]
    assert forest.sum_G(forest.sum_R(x_M)).tolist() == [21, 24]


def test_denominators_count_every_target_token(forest: Forest) -> None:
    assert count([FIRST, SECOND]) == Denominators(9, 5, 0, 2)
    assert forest.denominators == Denominators(9, 5, 0, 2, laid_tokens=9)
    beside = plant([SECOND], count([FIRST, SECOND]))
    assert (beside.denominators.tokens, beside.denominators.responses, beside.denominators.laid_tokens) == (9, 5, 3)


def test_pairs_of_a_ranking() -> None:
    """Tiers 1, 0, 1: the middle one is better than both others, which are tied."""
    ranked = replace(FIRST, tiers=(1, 0, 1))
    forest = plant([replace(SECOND, tiers=(0, 1)), ranked])
    assert list(zip(forest.better_P.tolist(), forest.worse_P.tolist(), strict=True)) == [(0, 1), (3, 2), (3, 4)]
    assert forest.denominators.pairs == 3
    parts = forest.split(1)
    assert [part.num_responses for part in parts] == [2, 3], "a group with pairs is never cut"
    assert [list(zip(p.better_P.tolist(), p.worse_P.tolist(), strict=True)) for p in parts] == [[(0, 1)], [(1, 0), (1, 2)]]
    assert {part.denominators.pairs for part in parts} == {3}


def test_streams(forest: Forest) -> None:
    more = forest.with_streams({"advantage_R": torch.arange(5.0), "old_logp_M": torch.arange(9.0)}).with_streams({"size_G": torch.ones(2)})
    assert set(more.streams) == {"advantage_R", "old_logp_M", "size_G"}
    assert more["advantage_R"].tolist() == [0, 1, 2, 3, 4]
    for wrong in ({"advantage_R": torch.ones(9)}, {"advantage": torch.ones(5)}, {"old_logp_M": torch.ones(1)}):
        with pytest.raises(AssertionError, match="stream"):
            forest.with_streams(wrong)


def test_sampled_logprobs_of_the_scored_tokens_alone() -> None:
    written = group("w", [1], response([5, 6, 7], [True, False, True], logprobs=True), response([8], logprobs=True))
    assert plant([written])["sampled_logp_M"].tolist() == pytest.approx([-0.5, -0.7, -0.8])
    mixed = group("w", [1], response([5, 6], logprobs=True), response([8]))
    assert "sampled_logp_M" not in plant([mixed]).streams


def test_a_part_is_what_planting_it_alone_gives(forest: Forest) -> None:
    """Budget 8: the first tree of 11 tokens is cut after its second leaf, its root is laid out again; the second fits."""
    forest = forest.with_streams({"advantage_R": torch.arange(5.0), "old_logp_M": torch.arange(9.0)})
    parts = forest.split(8)
    cut = [replace(FIRST, responses=FIRST.responses[:2]), replace(FIRST, responses=FIRST.responses[2:]), SECOND]
    assert [part.tokens_N.numel() for part in parts] == [8, 6, 7]
    for part, piece in zip(parts, cut, strict=True):
        assert_same_layout(part, plant([piece], temperature=0.7))
        assert part.denominators == forest.denominators
    assert [part["advantage_R"].tolist() for part in parts] == [[0, 1], [2], [3, 4]]
    assert [part["old_logp_M"].tolist() for part in parts] == [[0, 1, 2, 3], [4, 5], [6, 7, 8]]


def assert_same_layout(mine: Forest, theirs: Forest) -> None:
    assert mine.trees == theirs.trees
    for name, tensor in vars(theirs).items():
        if isinstance(tensor, torch.Tensor):
            assert torch.equal(getattr(mine, name), tensor), name


def test_splitting_keeps_order_and_loses_nothing() -> None:
    chance = random.Random(0)
    groups = [
        group(f"g{g}", [1] * chance.randint(1, 6), *(response([100 * g + r] * chance.randint(1, 7)) for r in range(chance.randint(1, 5))))
        for g in range(9)
    ]
    forest = plant(groups)
    for budget in (1, 7, 12, 20, 33, 1000):
        parts = forest.split(budget)
        assert torch.cat([part.target_M for part in parts]).tolist() == forest.target_M.tolist()
        assert sum(part.num_responses for part in parts) == forest.num_responses
        for part in parts:
            single = len(part.trees) == 1 and len(part.trees[0].leaves) == 1
            assert part.tokens_N.numel() <= budget or single
    assert len(forest.split(1)) == forest.num_responses
    assert forest.split(1000) == [forest]


def test_each_tree(forest: Forest) -> None:
    trees = forest.each_tree()
    for tree, planted in zip(trees, (FIRST, SECOND), strict=True):
        assert_same_layout(tree, plant([planted], temperature=0.7))
    assert len(plant([FIRST]).each_tree()) == 1


def test_what_cannot_be_laid_out() -> None:
    with pytest.raises(ValueError, match=r"group empty: an empty prompt or response.*one token"):
        plant([group("empty", [], response([1]))])
    with pytest.raises(ValueError, match=r"group empty"):
        plant([FIRST, group("empty", [1], response([2]), Response((), (), ""))])
    with pytest.raises(ValueError, match="the whole step has no target token"):
        plant([group("unscored", [1], response([2, 3], [False, False]))])
    assert plant([], Denominators(5, 1, 0, 1)).tokens_N.numel() == 0


def test_it_moves_as_a_whole(forest: Forest) -> None:
    moved = forest.with_streams({"old_logp_M": torch.ones(9)}).to(torch.device("meta"))
    tensors = [value for value in (*vars(moved).values(), *moved.streams.values()) if isinstance(value, torch.Tensor)]
    assert len(tensors) == 14
    assert {tensor.device.type for tensor in tensors} == {"meta"}
