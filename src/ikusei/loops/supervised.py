"""The supervised loop: one update a step on rows of data. Pretraining, fine-tuning, reward models and DPO differ in rows and losses."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from ikusei.forest import Denominators, Forest, count
from ikusei.loops.data import Rows
from ikusei.loops.filtering import Filter
from ikusei.loops.metrics import peak_memory_mb
from ikusei.loops.precompute import Precompute
from ikusei.loops.replay import Replay, ReplaySettings
from ikusei.loops.reward_scale import NormaliseSettings
from ikusei.loops.steps import ReferenceSync, Schedule, Shape, Step, StopRequest
from ikusei.loops.update import traced, update
from ikusei.protocols import Algorithm, Policy, State, next_state
from ikusei.types import Group


@dataclass(frozen=True)
class SupervisedSettings:
    """Each step takes `examples_per_step` rows and makes one update. Rows are shuffled each epoch, or read `in_order`.
    `tokens_per_microbatch` bounds the memory of the update and changes no number. `cut_at` is the most tokens of a prompt with a response;
    longer responses are truncated (None: never). `filtered` is filtered DPO (filtering.py); `normalise` is for reward models
    (reward_scale.py)."""

    samples: ClassVar[bool] = False
    serves: ClassVar[frozenset[str]] = frozenset({"reference", "value", "mismatched", "reward"})  # the needs of algorithms that it can meet

    steps: int = 100
    examples_per_step: int = 32
    in_order: bool = False
    lr: float = 1e-5
    warmup_steps: int = 0
    lr_shape: Shape = "cosine"
    min_lr: float = 0.0
    tokens_per_microbatch: int = 4096
    save_every: int = 100
    cut_at: int | None = None
    filtered: bool = False
    reference: ReferenceSync = field(default_factory=ReferenceSync)
    replay: ReplaySettings = field(default_factory=ReplaySettings)
    normalise: NormaliseSettings = field(default_factory=NormaliseSettings)

    def __post_init__(self) -> None:
        at_least_one = ("steps", "examples_per_step", "tokens_per_microbatch", "save_every", "cut_at")
        low = {name: value for name, value in vars(self).items() if name in at_least_one and value is not None and value < 1}
        if low:
            raise ValueError(f"got {low}; allowed: 1 or more")
        self.schedule()

    @property
    def needs_rewards(self) -> bool:
        return self.filtered

    def schedule(self) -> Schedule:
        return Schedule(self.lr, self.warmup_steps, self.lr_shape, self.min_lr)


@dataclass(frozen=True)
class Supervised:
    """A supervised training run, ready to start."""

    policy: Policy
    rows: Rows
    algorithm: Algorithm
    settings: SupervisedSettings
    precompute: Precompute
    replay: Replay | None = None
    filter: Filter | None = None

    def steps(self, start: int, state: State, stop: StopRequest) -> Iterator[Step]:
        """Steps `start` + 1 to the last; each is yielded after its update. Ends early once `stop` is requested, or where too few rows
        remain after filtering. Raises NonFinite, with the weights as they were before the update."""
        for number in range(start, self.settings.steps):
            began = time.perf_counter()
            groups, state = self.take(number, state)
            if not groups:
                return
            keep = [self.algorithm.keep(group) for group in groups]
            kept = [group for group, yes in zip(groups, keep, strict=True) if yes]
            forest = self.forest(kept, count(groups), state)
            pieces = [(forest, self.algorithm.loss), *(self.replay.pieces(number) if self.replay else [])]
            lr = self.settings.schedule().at(number, self.settings.steps)
            with traced(self.policy, number, kept, forest, self.algorithm.loss):
                metrics = update(self.policy, pieces, self.settings.tokens_per_microbatch, lr)
            state = {**state, **next_state(self.algorithm, state, metrics)}
            self.settings.reference.after_step(number + 1, self.precompute.reference, self.policy)
            metrics |= {"time/step": time.perf_counter() - began, "memory/peak_mb": peak_memory_mb()}
            metrics["completions/mean_length"] = count(groups).tokens / count(groups).responses
            if self.filter:
                metrics["pairs/left"] = float(len(state["filter"]["rows"]))
            yield Step(number + 1, metrics, groups, keep, state)
            if stop:
                return

    def take(self, number: int, state: State) -> tuple[list[Group], State]:
        """The rows of a step, from all rows or from those that remain after filtering."""
        if self.filter is None:
            return self.rows.examples(number, self.settings.examples_per_step), state
        groups, filtered = self.filter.take(number, self.settings.examples_per_step, state.get("filter"))
        return groups, {**state, "filter": filtered}

    def forest(self, kept: Sequence[Group], denominators: Denominators, state: State) -> Forest:
        """The kept groups as tensors, with streams and credit (`Precompute.forest`). `denominators` count every group of the step."""
        return self.precompute.forest(self.algorithm, kept, denominators, state)
