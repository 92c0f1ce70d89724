"""Shared by the training loops: learning-rate schedule, reference sync, the record of a step, and stopping on Ctrl-C."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from ikusei.protocols import Metrics, Policy, Reference, State
from ikusei.types import Group

Shape = Literal["constant", "cosine", "linear"]


@dataclass(frozen=True)
class Schedule:
    """The learning rate by step: linear warm-up to `lr`, then `shape` down to `min_lr`, which the step after the last would have."""

    lr: float = 1e-5
    warmup_steps: int = 0
    shape: Shape = "constant"
    min_lr: float = 0.0

    def __post_init__(self) -> None:
        if not (0 < self.lr < 1 and 0 <= self.min_lr <= self.lr and self.warmup_steps >= 0):
            raise ValueError(
                f"got lr={self.lr}, min_lr={self.min_lr}, warmup_steps={self.warmup_steps}; "
                "allowed: 0 < lr < 1, 0 <= min_lr <= lr, warmup_steps >= 0; usual are 1e-6 to 1e-3"
            )

    def at(self, step: int, steps: int) -> float:
        """The rate of update number `step` (from 0) of `steps`."""
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, steps - self.warmup_steps)
        falling = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * min(1.0, done))) / 2}[self.shape]
        return self.min_lr + (self.lr - self.min_lr) * falling


@dataclass(frozen=True)
class ReferenceSync:
    """Reference sync: after every `every` steps (0: never), ref = mix * policy + (1 - mix) * ref.

    mix 1 replaces the reference by the policy (DeepSeek-R1-Zero); 0.6 is TR-DPO's (arXiv:2404.09656).
    """

    every: int = 0
    mix: float = 1.0

    def __post_init__(self) -> None:
        if self.every < 0 or not 0 < self.mix <= 1:
            raise ValueError(f"got every={self.every}, mix={self.mix}; allowed: every 0 or more, 0 < mix <= 1")

    def after_step(self, number: int, reference: Reference | None, policy: Policy) -> None:
        """Syncs the reference where step `number` (1 for the first) is a multiple of `every`."""
        if self.every and number % self.every == 0 and reference is not None:
            reference.sync(self.mix)


@dataclass(frozen=True)
class Step:
    """The record of a step: metrics, all sampled groups, which of them were trained on, and the algorithm's state after the step."""

    number: int  # 1 for the first
    metrics: Metrics
    groups: list[Group]
    kept: list[bool]
    state: State
    advantages: dict[tuple[int, int], float] = field(default_factory=dict)  # by (index of the group, index of the response)


class RewardsFailed(RuntimeError):
    """A reward failed on too many responses to go on; the message names it and shows one of them."""


class StopRequest:
    """True once the user has pressed Ctrl-C."""

    def __init__(self) -> None:
        self.requested = False

    def __bool__(self) -> bool:
        return self.requested


@contextmanager
def stop_on_interrupt() -> Iterator[StopRequest]:
    """Ctrl-C once: finish the step and save. Twice: KeyboardInterrupt, as ever."""
    stop = StopRequest()

    def handler(signum: int, frame: object) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
