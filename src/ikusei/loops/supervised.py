"""The supervised loop: texts in, one update a step. Pretraining and fine-tuning differ in their rows alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from ikusei.forest import count, plant
from ikusei.loops.data import Rows
from ikusei.loops.measure import peak_memory_mb
from ikusei.loops.steps import Schedule, Shape, Step, StopAsked, naming, update
from ikusei.protocols import Algorithm, Policy, State


@dataclass(frozen=True)
class SupervisedSettings:
    """Each step takes `examples_per_step` rows and makes one update. `in_order` reads them as they come, else they are shuffled each
    epoch. `tokens_per_part` bounds the memory of the update and changes no number."""

    steps: int = 100
    examples_per_step: int = 32
    in_order: bool = False
    lr: float = 1e-5
    warmup_steps: int = 0
    lr_shape: Shape = "cosine"
    min_lr: float = 0.0
    tokens_per_part: int = 8192
    save_every: int = 100

    def __post_init__(self) -> None:
        at_least_one = ("steps", "examples_per_step", "tokens_per_part", "save_every")
        low = {name: value for name, value in vars(self).items() if name in at_least_one and value < 1}
        if low:
            raise ValueError(f"got {low}; allowed: 1 or more")
        self.schedule()

    def schedule(self) -> Schedule:
        return Schedule(self.lr, self.warmup_steps, self.lr_shape, self.min_lr)


@dataclass(frozen=True)
class Supervised:
    """The parts of a supervised run, put together."""

    policy: Policy
    rows: Rows
    algorithm: Algorithm
    settings: SupervisedSettings

    def steps(self, start: int, state: State, stop: StopAsked) -> Iterator[Step]:
        """Steps `start` + 1 to the last, each one yielded when its update is made; ends early once `stop` is asked."""
        for number in range(start, self.settings.steps):
            began = time.perf_counter()
            groups = self.rows.examples(number, self.settings.examples_per_step)
            forest = plant(groups)
            forest = forest.with_streams(self.algorithm.credit(groups, forest, state))
            lr = self.settings.schedule().at(number, self.settings.steps)
            with naming(self.policy, number, groups, forest, self.algorithm.loss):
                metrics = update(self.policy, forest, self.algorithm.loss, self.settings.tokens_per_part, lr)
            state = self.algorithm.advance(state, metrics)
            metrics |= {"time/step": time.perf_counter() - began, "memory/peak_mb": peak_memory_mb()}
            metrics["completions/mean_length"] = count(groups).tokens / count(groups).responses
            yield Step(number + 1, metrics, groups, [True] * len(groups), state)
            if stop:
                return
