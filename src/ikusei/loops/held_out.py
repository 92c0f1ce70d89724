"""What a supervised algorithm says of rows that it does not learn from: its loss and metrics, row by row, with intervals over rows; and the
evidence for the figures of figures/rows.py: what texts cost, how a reward model ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ikusei.figures import rows
from ikusei.figures.figure import measure
from ikusei.figures.rows import Rankings, Texts
from ikusei.forest import count, plant
from ikusei.intervals import mean_interval
from ikusei.loops.precompute import Before, along_M
from ikusei.protocols import Algorithm, first_state
from ikusei.types import Group


def held_out(before: Before, algorithm: Algorithm, groups: Sequence[Group]) -> dict[str, Any]:
    """Loss and metrics over the rows, each row's own first, so that they have intervals. {} where there is nothing to learn from."""
    kept = [group for group in groups if algorithm.keep(group)]
    if not kept or ("mismatched" in before.needs and len(kept) < 2):
        return {}
    forest = before.forest(algorithm, kept, count(kept), first_state(algorithm))
    values: dict[str, list[float]] = {}
    for group, tree in zip(kept, forest.each_tree(), strict=True):
        own = replace(tree, totals=replace(count([group]), laid_tokens=float(tree.target_M.numel())))
        out = before.policy.forward(own)
        loss = algorithm.loss(out, own.to(out.entropy_M.device))
        for name, value in {"loss": loss.value, **loss.metrics}.items():
            values.setdefault(name, []).append(float(value))
    return {"num_rows": len(kept), **{name: mean_interval(each) for name, each in values.items()}}


def on_texts(before: Before, groups: Sequence[Group]) -> dict[str, Any]:
    """Figures of the rows' responses as texts. None each where there are none: responses that are scored in part (conversations) do not
    count, for their texts hold more than that."""
    whole = [replace(group, tiers=None, responses=tuple(r for r in group.responses if r.text and all(r.mask))) for group in groups]
    groups = [group for group in whole if group.responses]
    if not groups:
        return {figure.name: None for figure in rows.FIGURES if figure.of is Texts}
    forest = plant(groups)
    bits = forest.sum_R(along_M(before.policy, forest, before.tokens_per_microbatch)).double().numpy() / -math.log(2)
    sizes = np.array([len(response.text.encode()) for group in groups for response in group.responses], dtype=float)
    return measure(rows.FIGURES, Texts(bits, sizes))


def on_rankings(before: Before, groups: Sequence[Group]) -> dict[str, Any]:
    """Figures of a reward model on held-out rankings, what one must know before trusting it. {} where no row has a pair."""
    groups = [group for group in groups if group.pairs]
    if not groups:
        return {}
    forest = plant(groups)
    parts = [before.policy.forward(part).reward_R for part in forest.split(before.tokens_per_microbatch)]
    rankings = Rankings(
        reward_R=np.concatenate([each.cpu().double().numpy() for each in parts if each is not None]),
        length_R=np.array([len(response.tokens) for group in groups for response in group.responses], dtype=float),
        group_R=forest.group_R.numpy(),
        better_P=forest.better_P.numpy(),
        worse_P=forest.worse_P.numpy(),
        tiers=[group.tiers for group in groups],
    )
    return measure(rows.FIGURES, rankings)
