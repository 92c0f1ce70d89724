"""What a supervised algorithm says of rows that it does not learn from: its loss and metrics, row by row, with intervals over rows.

Of texts also the bits a byte, which compare models of different tokenizers:   -sum log pi(t) / (ln 2 * bytes), the end token included.
Of a reward model what one must know before trusting it (`judged`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np
from scipy.stats import rankdata

from ikusei.forest import count, plant
from ikusei.intervals import Interval, centred, correlation, mean_interval
from ikusei.loops.precompute import Before, along_M
from ikusei.protocols import Algorithm
from ikusei.types import Group

BINS = 5  # of the calibration


def held_out(before: Before, algorithm: Algorithm, groups: Sequence[Group]) -> dict[str, Any]:
    """Loss and metrics over the rows, each row's own first, so that they have intervals. {} where there is nothing to learn from."""
    kept = [group for group in groups if algorithm.keep(group)]
    if not kept or ("mismatched" in before.needs and len(kept) < 2):
        return {}
    forest = plant(kept)
    forest = forest.with_streams(before.streams(kept, forest))
    forest = forest.with_streams(algorithm.credit(kept, forest, algorithm.start()))
    values: dict[str, list[float]] = {}
    for group, tree in zip(kept, forest.each_tree(), strict=True):
        own = replace(tree, totals=replace(count([group]), laid_tokens=float(tree.target_M.numel())))
        out = before.policy.forward(own)
        loss = algorithm.loss(out, own.to(out.entropy_M.device))
        for name, value in {"loss": loss.value, **loss.metrics}.items():
            values.setdefault(name, []).append(float(value))
    return {"num_rows": len(kept), **{name: mean_interval(each) for name, each in values.items()}}


def bits_per_byte(before: Before, groups: Sequence[Group]) -> Interval | None:
    """Over all bytes of the rows' responses, with the interval of a ratio of two means over rows. None where there are none: responses
    that are scored in part (conversations) do not count, for their texts hold more than that."""
    whole = [replace(group, tiers=None, responses=tuple(r for r in group.responses if r.text and all(r.mask))) for group in groups]
    groups = [group for group in whole if group.responses]
    if not groups:
        return None
    forest = plant(groups)
    bits = forest.sum_R(along_M(before.policy, forest, before.tokens_per_part)).double().numpy() / -math.log(2)
    sizes = np.array([len(response.text.encode()) for group in groups for response in group.responses], dtype=float)
    ratio = float(bits.sum() / sizes.sum())
    spread = mean_interval(((bits - ratio * sizes) / sizes.mean() + ratio).tolist())  # the delta method: its mean is the ratio
    return Interval(ratio, spread.low, spread.high)


def judged(before: Before, groups: Sequence[Group]) -> dict[str, Any]:
    """Of a reward model on held-out rankings: the share of pairs that it puts in the given order; how sure it is against how right (the
    expected error of P = sigmoid(difference) over bins); how its rewards go with length, prompt by prompt; and how its ranking agrees with
    the given one (Spearman, averaged over rankings). `calibration` has the bins: the mean stated chance and the share that came true."""
    groups = [group for group in groups if group.pairs]
    if not groups:
        return {}
    forest = plant(groups)
    said = [before.policy.forward(part).reward_R for part in forest.split(before.tokens_per_part)]
    reward = np.concatenate([each.cpu().double().numpy() for each in said if each is not None])
    better, worse = reward[forest.better_P.numpy()], reward[forest.worse_P.numpy()]
    pair_group = forest.group_R[forest.better_P].numpy()
    right = (better > worse) + 0.5 * (better == worse)
    length = np.array([len(response.tokens) for group in groups for response in group.responses], dtype=float)
    group_R = forest.group_R.numpy()
    rankings = [_agreement(reward[group_R == g], group) for g, group in enumerate(groups)]
    stated = 1 / (1 + np.exp(-np.abs(better - worse)))
    bins = _calibration(stated, right)
    agreement = [each for each in rankings if each is not None]
    return {
        "accuracy": mean_interval([float(right[pair_group == g].mean()) for g in np.unique(pair_group)]),
        "calibration_error": float(sum(row["pairs"] * abs(row["stated"] - row["right"]) for row in bins) / max(len(stated), 1)),
        "length_bias": correlation(centred(reward, group_R), centred(length, group_R)) or 0.0,
        "reward_mean": float(reward.mean()),
        "reward_std": float(reward.std()),
        "calibration": bins,
    } | ({"agreement": mean_interval(agreement)} if agreement else {})


def _agreement(reward: np.ndarray, group: Group) -> float | None:
    """Spearman's rank correlation of rewards and ranks; a pair gives 1 or -1. None where it has none."""
    if group.tiers is None or len(set(group.tiers)) < 2 or len(set(reward.tolist())) < 2:
        return None
    return float(np.corrcoef(rankdata(reward), rankdata([-tier for tier in group.tiers]))[0, 1])


def _calibration(stated: np.ndarray, right: np.ndarray) -> list[dict[str, float]]:
    """Bins of equal size by the stated chance of the likelier order, each with how often that order was right."""
    order = np.argsort(stated, kind="stable")
    return [
        {"stated": fmean(stated[part].tolist()), "right": fmean(right[part].tolist()), "pairs": len(part)}
        for part in np.array_split(order, min(BINS, len(order)))
        if len(part)
    ]
