"""The online loop: sample, score, credit, update. Reads top to bottom; whatever it needs is handed in.

Sampling and scoring overlap: a group goes to the reward workers as soon as it is written. Groups are put back into the order of asking
before anything is computed from them. A step whose groups all teach nothing still makes its update (of zero gradients), so that skipping
changes nothing and checkpoint N holds exactly N updates of a run with one update a step.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor

from ikusei.forest import Forest, Totals, count
from ikusei.guard.outcomes import failure_counts, gold_names, too_many_failures
from ikusei.guard.workers import RewardWorkers
from ikusei.loops.data import Rows
from ikusei.loops.metrics import advantages, describe, of_forest, peak_memory_mb
from ikusei.loops.order import in_order
from ikusei.loops.precompute import Before, along_M
from ikusei.loops.replay import Replay, Replaying
from ikusei.loops.steps import Moving, RewardsFailed, Schedule, Shape, Step, StopAsked
from ikusei.loops.update import naming, update, with_gap
from ikusei.protocols import Algorithm, LossFunction, Metrics, Policy, Sampler, State, next_state
from ikusei.samplers.draw import response_seed
from ikusei.types import Group, Prompt, Sampling


@dataclass(frozen=True)
class OnlineSettings:
    """Each step samples `num_responses` answers for `prompts_per_step` prompts and makes `updates_per_step` updates from them.

    `refill_rounds` > 0 samples further prompts, so many times at most, until `prompts_per_step` groups teach something (DAPO's dynamic
    sampling). `tokens_per_microbatch` bounds the memory of the update and changes no number. With `importance_cap` each token's loss is
    weighted by how likely the policy holds it over how likely it was when sampled, at most this (truncated importance sampling, 2 is
    usual): for samples of another distribution, cut by top-p or written in another precision.
    """

    samples: ClassVar[bool] = True  # its answers, so it needs rewards
    needs_rewards: ClassVar[bool] = True
    serves: ClassVar[frozenset[str]] = frozenset({"old", "reference", "value", "mismatched", "tiers"})  # of what algorithms need

    steps: int = 100
    prompts_per_step: int = 16
    num_responses: int = 8
    updates_per_step: int = 1
    refill_rounds: int = 0
    lr: float = 1e-5
    warmup_steps: int = 0
    lr_shape: Shape = "constant"
    min_lr: float = 0.0
    tokens_per_microbatch: int = 4096
    importance_cap: float | None = None
    save_every: int = 20
    max_failures: float = 0.5  # the run stops when a reward fails on a larger share of a step's answers
    reference: Moving = field(default_factory=Moving)
    replay: Replaying = field(default_factory=Replaying)

    def __post_init__(self) -> None:
        at_least_one = ("steps", "prompts_per_step", "num_responses", "updates_per_step", "tokens_per_microbatch", "save_every")
        low = {name: value for name, value in vars(self).items() if name in at_least_one and value < 1}
        if low or self.refill_rounds < 0:
            raise ValueError(f"got {low or {'refill_rounds': self.refill_rounds}}; allowed: 1 or more (refill_rounds: 0 or more)")
        if self.importance_cap is not None and self.importance_cap <= 0:
            raise ValueError(f"got importance_cap={self.importance_cap}; allowed: above 0, 2 is usual; null does not weight")
        self.schedule()

    def schedule(self) -> Schedule:
        return Schedule(self.lr, self.warmup_steps, self.lr_shape, self.min_lr)


@dataclass(frozen=True)
class Online:
    """The parts of an online run, put together."""

    policy: Policy
    rows: Rows
    workers: RewardWorkers
    algorithm: Algorithm
    sampling: Sampling
    settings: OnlineSettings
    seed: int
    before: Before  # who is asked; its reference, where the algorithm needs one, is the policy as this stage began
    replay: Replay | None = None

    def steps(self, start: int, state: State, stop: StopAsked) -> Iterator[Step]:
        """Steps `start` + 1 to the last, each one yielded when its update is made; ends early once `stop` is asked. Raises
        RewardsFailed; and NonFinite, with the weights as they were before the update."""
        for number in range(start, self.settings.steps):
            began = time.perf_counter()
            groups, clock = self.sample(number)
            whole = [self.whole(group) for group in groups]
            keep = [self.keeps(group) for group in whole]
            kept = [group for group, yes in zip(whole, keep, strict=True) if yes]
            metrics = describe(groups, len(kept), self.gold) | failure_counts(groups) | clock
            trained = time.perf_counter()
            forest = self.forest(kept, count(whole), state)
            metrics |= of_forest(forest)
            replayed = self.replay.pieces(number) if self.replay else []
            lr = self.settings.schedule().at(number, self.settings.steps)
            with naming(self.policy, number, kept, forest, self.algorithm.loss):
                for loss in self.losses:
                    metrics |= update(self.policy, [(forest, loss), *replayed], self.settings.tokens_per_microbatch, lr)
            state = next_state(self.algorithm, state, metrics)
            self.settings.reference.after(number + 1, self.before.reference, self.policy)
            now = time.perf_counter()
            metrics |= {"time/train": now - trained, "time/step": now - began, "memory/peak_mb": peak_memory_mb()}
            yield Step(number + 1, metrics, groups, keep, state, placed(groups, keep, advantages(forest)))
            if stop:
                return

    @property
    def gold(self) -> list[str]:
        """The rewards that are not trained on."""
        return gold_names(self.workers.specs)

    def sample(self, number: int) -> tuple[list[Group], Metrics]:
        """Scored groups of a step, in the order of asking, and the seconds spent. Raises RewardsFailed."""
        sampler, wanted = self.policy.snapshot(), self.settings.prompts_per_step
        groups: list[Group] = []
        clock = {"time/sample": 0.0, "time/reward": 0.0}
        for round in range(1 + self.settings.refill_rounds):
            missing = wanted - sum(self.keeps(self.whole(group)) for group in groups)
            if missing <= 0:
                break
            prompts = self.rows.prompts(number, wanted, round)[:missing]
            groups += self.write_and_score(sampler, prompts, round_seed(self.seed, number, round), clock)
        problem = too_many_failures(groups, self.settings.max_failures)
        if problem or not any(group.without_failures().responses for group in groups):
            raise RewardsFailed(problem or "no reward applies to any answer; run `ikusei check` on the recipe to see what its rewards say")
        return groups, clock

    def write_and_score(self, sampler: Sampler, prompts: Sequence[Prompt], seed: int, clock: Metrics) -> list[Group]:
        """Each group goes to the workers as soon as it is written; `time/reward` is what scoring takes beyond sampling."""
        began = time.perf_counter()
        pending = [self.workers.submit(group) for group in sampler.sample(prompts, self.settings.num_responses, self.sampling, seed)]
        written = time.perf_counter()
        scored = in_order(prompts, [each.result() for each in pending])
        clock["time/sample"] += written - began
        clock["time/reward"] += time.perf_counter() - written
        return scored

    def forest(self, kept: Sequence[Group], totals: Totals, state: State) -> Forest:
        """What the updates of a step learn from: see `Before.forest`. `totals` are of every group of the step, as `whole` gives them."""
        return self.before.forest(self.algorithm, kept, totals, state, self.sampling.temperature, self.sampled_streams)

    def sampled_streams(self, forest: Forest) -> dict[str, Tensor]:
        """What the policy that sampled held of its answers. Its own log-probs serve as the old ones, unless it cut words off."""
        cap, sampled_M = self.settings.importance_cap, forest["sampled_logp_M"]
        differs = self.sampling.truncated or cap is not None
        old_M = along_M(self.policy, forest, self.settings.tokens_per_microbatch) if differs else sampled_M
        streams = {"old_logp_M": old_M} if "old" in self.algorithm.needs else {}
        return streams if cap is None else {**streams, "importance_M": (old_M - sampled_M).exp().clamp(max=cap)}

    @property
    def losses(self) -> list[LossFunction]:
        """One for each update of a step. Only the first sees the weights that sampled: there the sampler's log-probs are held against them,
        unless it cut words off."""
        losses: list[LossFunction] = [self.algorithm.loss] * self.settings.updates_per_step
        return losses if self.sampling.truncated else [with_gap(losses[0]), *losses[1:]]

    def whole(self, group: Group) -> Group:
        """The group as it is learned from: without failed responses, and ranked by its totals where the algorithm asks for that."""
        group = group.without_failures()
        if "tiers" not in self.algorithm.needs:
            return group
        order = sorted(set(group.totals), reverse=True)
        return replace(group, tiers=tuple(order.index(total) for total in group.totals))

    def keeps(self, group: Group) -> bool:
        return bool(group.responses) and self.algorithm.keep(group)


def round_seed(seed: int, step: int, round: int) -> int:
    """Steps and rounds draw from seeds of their own; evaluation from the run's."""
    return response_seed(seed, f"step {step}", round)


def placed(groups: Sequence[Group], keep: Sequence[bool], values: Sequence[float]) -> dict[tuple[int, int], float]:
    """Numbers of the kept groups' scored responses, by where these stand among all that were sampled."""
    at = [
        (g, r)
        for g, (group, kept) in enumerate(zip(groups, keep, strict=True))
        for r, response in enumerate(group.responses)
        if kept and response.total is not None
    ]
    return dict(zip(at, values, strict=True)) if values else {}
