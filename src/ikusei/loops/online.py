"""The online loop: sample, score, credit, update. Reads top to bottom; whatever it needs is handed in.

Sampling and scoring overlap: a group goes to the reward workers as soon as it is sampled. Groups are put back into the order of their
prompts before anything is computed from them. Groups without a learning signal are skipped. A step in which all are skipped still makes
its optimiser step, with zero gradients, so that skipping changes no number and checkpoint N always holds N steps.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor

from ikusei.forest import Denominators, Forest, count
from ikusei.guard.outcomes import failure_counts, gold_names, too_many_failures
from ikusei.guard.workers import RewardWorkers
from ikusei.loops.data import Rows
from ikusei.loops.metrics import advantages, describe, of_forest, peak_memory_mb
from ikusei.loops.order import in_order
from ikusei.loops.precompute import Precompute, along_M
from ikusei.loops.replay import Replay, ReplaySettings
from ikusei.loops.steps import ReferenceSync, RewardsFailed, Schedule, Shape, Step, StopRequest
from ikusei.loops.update import traced, update, with_gap
from ikusei.protocols import Algorithm, LossFunction, Metrics, Policy, Sampler, State, next_state
from ikusei.samplers.draw import response_seed
from ikusei.types import Group, Prompt, Sampling


@dataclass(frozen=True)
class OnlineSettings:
    """Each step samples `num_responses` responses to each of `prompts_per_step` prompts and makes `updates_per_step` updates from them.

    `refill_rounds` > 0 is DAPO's dynamic sampling: at most so many times, further prompts are sampled until `prompts_per_step` groups have
    a learning signal. `tokens_per_microbatch` bounds the memory of the update and changes no number. With `importance_cap` each token's
    loss is multiplied by min(pi / pi_sampled, cap) (truncated importance sampling; 2 is usual), for samples from another distribution:
    truncated by top-p, or computed in another precision.
    """

    samples: ClassVar[bool] = True
    needs_rewards: ClassVar[bool] = True
    serves: ClassVar[frozenset[str]] = frozenset(
        {"old", "reference", "value", "mismatched", "tiers"}
    )  # the needs of algorithms that it can meet

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
    max_failures: float = 0.5  # the run stops when a reward fails on a larger share of a step's responses
    reference: ReferenceSync = field(default_factory=ReferenceSync)
    replay: ReplaySettings = field(default_factory=ReplaySettings)

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
    """An online training run, ready to start."""

    policy: Policy
    rows: Rows
    workers: RewardWorkers
    algorithm: Algorithm
    sampling: Sampling
    settings: OnlineSettings
    seed: int
    precompute: Precompute  # its reference is the policy as it was when this stage began
    replay: Replay | None = None

    def steps(self, start: int, state: State, stop: StopRequest) -> Iterator[Step]:
        """Steps `start` + 1 to the last; each is yielded after its update. Ends early once `stop` is requested.

        Raises:
            RewardsFailed: too many rewards of a step failed.
            NonFinite: a loss or gradient is NaN or infinite; the weights are those before the update.
        """
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
            with traced(self.policy, number, kept, forest, self.algorithm.loss):
                for loss in self.losses:
                    metrics |= update(self.policy, [(forest, loss), *replayed], self.settings.tokens_per_microbatch, lr)
            state = next_state(self.algorithm, state, metrics)
            self.settings.reference.after_step(number + 1, self.precompute.reference, self.policy)
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
        """The scored groups of a step, in the order of their prompts, and the seconds spent. Raises RewardsFailed."""
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
        """Samples and scores at the same time. `time/reward` is the time that scoring takes after sampling has ended."""
        began = time.perf_counter()
        pending = [self.workers.submit(group) for group in sampler.sample(prompts, self.settings.num_responses, self.sampling, seed)]
        written = time.perf_counter()
        scored = in_order(prompts, [each.result() for each in pending])
        clock["time/sample"] += written - began
        clock["time/reward"] += time.perf_counter() - written
        return scored

    def forest(self, kept: Sequence[Group], denominators: Denominators, state: State) -> Forest:
        """The kept groups as tensors, with streams and credit (`Precompute.forest`). `denominators` count every group of the step."""
        return self.precompute.forest(self.algorithm, kept, denominators, state, self.sampling.temperature, self.sampled_streams)

    def sampled_streams(self, forest: Forest) -> dict[str, Tensor]:
        """`old_logp_M` and `importance_M`. The sampler's own log-probs are the old ones, unless it truncated the distribution."""
        cap, sampled_M = self.settings.importance_cap, forest["sampled_logp_M"]
        differs = self.sampling.truncated or cap is not None
        old_M = along_M(self.policy, forest, self.settings.tokens_per_microbatch) if differs else sampled_M
        streams = {"old_logp_M": old_M} if "old" in self.algorithm.needs else {}
        return streams if cap is None else {**streams, "importance_M": (old_M - sampled_M).exp().clamp(max=cap)}

    @property
    def losses(self) -> list[LossFunction]:
        """One for each update of a step. The first update still has the weights that sampled: there the difference between the policy's and
        the sampler's log-probs is a metric, unless the sampler truncated the distribution."""
        losses: list[LossFunction] = [self.algorithm.loss] * self.settings.updates_per_step
        return losses if self.sampling.truncated else [with_gap(losses[0]), *losses[1:]]

    def whole(self, group: Group) -> Group:
        """The group that is learned from: without failed responses, and ranked by reward where the algorithm needs tiers."""
        group = group.without_failures()
        if "tiers" not in self.algorithm.needs:
            return group
        order = sorted(set(group.totals), reverse=True)
        return replace(group, tiers=tuple(order.index(total) for total in group.totals))

    def keeps(self, group: Group) -> bool:
        return bool(group.responses) and self.algorithm.keep(group)


def round_seed(seed: int, step: int, round: int) -> int:
    """The seed of one round of one step. Evaluation uses the run's own seed."""
    return response_seed(seed, f"step {step}", round)


def placed(groups: Sequence[Group], keep: Sequence[bool], values: Sequence[float]) -> dict[tuple[int, int], float]:
    """One value for each response that was trained on, by (index of the group, index of the response) among all that were sampled."""
    at = [
        (g, r)
        for g, (group, kept) in enumerate(zip(groups, keep, strict=True))
        for r, response in enumerate(group.responses)
        if kept and response.total is not None
    ]
    return dict(zip(at, values, strict=True)) if values else {}
