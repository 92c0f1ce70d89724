"""Evaluation on held-out rows of data: loss and metrics of a supervised algorithm with confidence intervals over rows, bits per byte of
texts, and the ranking accuracy of a reward model (eval_metrics/rows.py)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ikusei.eval_metrics import rows
from ikusei.eval_metrics.metric import measure
from ikusei.eval_metrics.rows import Rankings, Texts
from ikusei.forest import count, plant
from ikusei.intervals import mean_interval
from ikusei.loops.precompute import Precompute, along_M
from ikusei.protocols import Algorithm, first_state
from ikusei.types import Group


def held_out(precompute: Precompute, algorithm: Algorithm, groups: Sequence[Group]) -> dict[str, Any]:
    """The mean loss and metrics over the rows, with intervals: they are computed for each row by itself. {} where the algorithm keeps no
    row."""
    kept = [group for group in groups if algorithm.keep(group)]
    if not kept or ("mismatched" in precompute.needs and len(kept) < 2):
        return {}
    forest = precompute.forest(algorithm, kept, count(kept), first_state(algorithm))
    values: dict[str, list[float]] = {}
    for group, tree in zip(kept, forest.each_tree(), strict=True):
        own = replace(tree, denominators=replace(count([group]), laid_tokens=float(tree.target_M.numel())))
        out = precompute.policy.forward(own)
        loss = algorithm.loss(out, own.to(out.entropy_M.device))
        for name, value in {"loss": loss.value, **loss.metrics}.items():
            values.setdefault(name, []).append(float(value))
    return {"num_rows": len(kept), **{name: mean_interval(each) for name, each in values.items()}}


def on_texts(precompute: Precompute, groups: Sequence[Group]) -> dict[str, Any]:
    """Figures of the responses as texts, such as bits per byte; None each where there are none. Only fully unmasked responses count: of a
    conversation, whose mask leaves out turns, the text is longer than the target tokens."""
    whole = [replace(group, tiers=None, responses=tuple(r for r in group.responses if r.text and all(r.mask))) for group in groups]
    groups = [group for group in whole if group.responses]
    if not groups:
        return {figure.name: None for figure in rows.FIGURES if figure.of is Texts}
    forest = plant(groups)
    bits = forest.sum_R(along_M(precompute.policy, forest, precompute.tokens_per_microbatch)).double().numpy() / -math.log(2)
    sizes = np.array([len(response.text.encode()) for group in groups for response in group.responses], dtype=float)
    return measure(rows.FIGURES, Texts(bits, sizes))


def on_rankings(precompute: Precompute, groups: Sequence[Group]) -> dict[str, Any]:
    """Figures of a reward model on held-out rankings: accuracy, calibration, length bias. {} where no row has a pair."""
    groups = [group for group in groups if group.pairs]
    if not groups:
        return {}
    forest = plant(groups)
    outputs = [precompute.policy.forward(each).reward_R for each in forest.split(precompute.tokens_per_microbatch)]
    rankings = Rankings(
        reward_R=np.concatenate([each.cpu().double().numpy() for each in outputs if each is not None]),
        length_R=np.array([len(response.tokens) for group in groups for response in group.responses], dtype=float),
        group_R=forest.group_R.numpy(),
        better_P=forest.better_P.numpy(),
        worse_P=forest.worse_P.numpy(),
        tiers=[group.tiers for group in groups],
    )
    return measure(rows.FIGURES, rankings)
