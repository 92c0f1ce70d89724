"""The supervised loop: rows of data in, one update a step. Pretraining, fine-tuning, reward models and DPO differ in rows and losses."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from ikusei.forest import Forest, Totals, count
from ikusei.loops.data import Rows
from ikusei.loops.filtering import Filter
from ikusei.loops.metrics import peak_memory_mb
from ikusei.loops.normalise import Normalising
from ikusei.loops.precompute import Before
from ikusei.loops.replay import Replay, Replaying
from ikusei.loops.steps import Moving, Schedule, Shape, Step, StopAsked
from ikusei.loops.update import naming, update
from ikusei.protocols import Algorithm, Policy, State, next_state
from ikusei.types import Group


@dataclass(frozen=True)
class SupervisedSettings:
    """Each step takes `examples_per_step` rows and makes one update. `in_order` reads them as they come, else they are shuffled each
    epoch. `tokens_per_microbatch` bounds the memory of the update and changes no number. `cut_at` is how many tokens a prompt with a
    response may have; what is longer is cut only where it is given. `filtered` drops pairs that the policy has outgrown (filtering.py);
    `normalise` is for reward models (normalise.py)."""

    samples: ClassVar[bool] = False
    serves: ClassVar[frozenset[str]] = frozenset({"reference", "value", "mismatched", "reward"})  # of what algorithms need

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
    reference: Moving = field(default_factory=Moving)
    replay: Replaying = field(default_factory=Replaying)
    normalise: Normalising = field(default_factory=Normalising)

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
    """The parts of a supervised run, put together."""

    policy: Policy
    rows: Rows
    algorithm: Algorithm
    settings: SupervisedSettings
    before: Before
    replay: Replay | None = None
    filter: Filter | None = None

    def steps(self, start: int, state: State, stop: StopAsked) -> Iterator[Step]:
        """Steps `start` + 1 to the last, each one yielded when its update is made; ends early once `stop` is asked, or where a filter
        leaves no rows."""
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
            with naming(self.policy, number, kept, forest, self.algorithm.loss):
                metrics = update(self.policy, pieces, self.settings.tokens_per_microbatch, lr)
            state = {**state, **next_state(self.algorithm, state, metrics)}
            self.settings.reference.after(number + 1, self.before.reference, self.policy)
            metrics |= {"time/step": time.perf_counter() - began, "memory/peak_mb": peak_memory_mb()}
            metrics["completions/mean_length"] = count(groups).tokens / count(groups).responses
            if self.filter:
                metrics["pairs/left"] = float(len(state["filter"]["rows"]))
            yield Step(number + 1, metrics, groups, keep, state)
            if stop:
                return

    def take(self, number: int, state: State) -> tuple[list[Group], State]:
        """The rows of a step, from all of them or from those that a filter has left."""
        if self.filter is None:
            return self.rows.examples(number, self.settings.examples_per_step), state
        groups, filtered = self.filter.take(number, self.settings.examples_per_step, state.get("filter"))
        return groups, {**state, "filter": filtered}

    def forest(self, kept: Sequence[Group], totals: Totals, state: State) -> Forest:
        """What the update of a step learns from: see `Before.forest`. `totals` are of every group of the step."""
        return self.before.forest(self.algorithm, kept, totals, state)
