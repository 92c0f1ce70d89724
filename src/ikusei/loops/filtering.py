"""Filtered DPO: before each epoch, pairs whose chosen response does not beat the policy's own sample are removed.   arXiv:2404.13846

    keep (x, y_w, y_l)  iff  reward(x, y) < reward(x, y_w),   y ~ policy(x)

Pairs are filtered before the first epoch too, and a removed pair does not come back. An epoch is one pass over the remaining pairs, so the
number of steps is unchanged and each remaining pair is seen more often. The reward is the run's own, such as a reward model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ikusei.guard.outcomes import too_many_failures
from ikusei.guard.workers import RewardWorkers
from ikusei.loops.data import Rows
from ikusei.loops.order import in_order
from ikusei.loops.steps import RewardsFailed
from ikusei.protocols import Policy
from ikusei.samplers.draw import response_seed
from ikusei.types import Group, Sampling

Filtered = Mapping[str, Any]  # in the checkpoint: indices of the remaining rows, the epoch, and the first step of that epoch


@dataclass(frozen=True)
class Filter:
    """`policy` samples, `workers` score."""

    rows: Rows
    policy: Policy
    workers: RewardWorkers
    sampling: Sampling
    seed: int

    def take(self, step: int, count: int, state: Filtered | None) -> tuple[list[Group], Filtered]:
        """`count` rows for this step (from 0), and the state after it. No rows once fewer than `count` remain: training ends. Raises
        ValueError where so few remain after the first filtering."""
        if state is None or (step - state["began"] + 1) * count > len(state["rows"]):
            epoch = 0 if state is None else state["epoch"] + 1
            rows = range(self.rows.task.num_rows("train") or 0) if state is None else state["rows"]
            state = {"rows": self.passing(list(rows), epoch), "epoch": epoch, "began": step}
            if len(state["rows"]) < count:
                if epoch == 0:
                    raise ValueError(
                        f"{len(state['rows'])} pairs have a chosen answer that beats the policy's own, and a step takes {count}; this data "
                        "has nothing to teach this policy: collect new pairs from it, or take fewer examples_per_step"
                    )
                return [], state
        order = np.random.default_rng([self.seed, state["epoch"]]).permutation(state["rows"])
        begin = (step - state["began"]) * count
        return [self.rows.example("train", int(index)) for index in order[begin : begin + count]], state

    def passing(self, rows: Sequence[int], epoch: int) -> list[int]:
        """The rows whose best response has a higher reward than a fresh sample of the policy."""
        pairs = [self.rows.example("train", index) for index in rows]
        best = [group.responses[(group.tiers or (0,)).index(0)] for group in pairs]
        prompts = [replace(group.prompt, id=f"{group.prompt.id}/{n}") for n, group in enumerate(pairs)]
        written = self.policy.snapshot().sample(prompts, 1, self.sampling, response_seed(self.seed, "filter", epoch))
        own = [group.responses[0] for group in in_order(prompts, list(written))]
        compared = [Group(pair.prompt, (mine, theirs)) for pair, mine, theirs in zip(pairs, own, best, strict=True)]
        scored = self.workers.score(compared)
        problem = too_many_failures(scored)
        if problem:
            raise RewardsFailed(problem)
        totals = [(group.responses[0].total, group.responses[1].total) for group in scored]
        return [row for row, (mine, theirs) in zip(rows, totals, strict=True) if mine is not None and theirs is not None and mine < theirs]
