"""What a recipe asks of a reward, and what became of its calls: one status each, a total or none, and the counts of what failed.

Left out: composing rewards in an order, where one speaks only if those before it are equal.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ikusei.rewards import BUILT_IN
from ikusei.types import Group, Part, Prompt, Response, Score, Status, Term

LEARNED = "learned"  # the path of a reward that is a reward model
FAILURES: dict[Status, str] = {  # the failed statuses and the metric that counts each
    "error": "reward_errors",
    "timeout": "reward_timeouts",
    "crashed": "reward_crashes",
    "not_finite": "reward_not_finite",
}


@dataclass(frozen=True)
class RewardSpec:
    """What a recipe says of one reward.

    `path` is "package.module:function", "package.module.function", "file.py:function" or the bare name of a built-in. The total of a
    response is the sum of `weight` times value, times the value of each `gate`; a `gold` reward is measured and never trained on.
    `timeout_s` is for one call: for one response, or for the whole group where the reward has TRL's batched signature. `settings` go to
    a reward that is a class, or to a function that makes one. One that runs what the model has written says `executes` and works in a jail
    (jail.py); where the system cannot make one it is refused, unless it is to run `unconfined`.
    """

    name: str
    path: str
    weight: float = 1.0
    gate: bool = False
    gold: bool = False
    timeout_s: float = 5.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    executes: bool = False
    unconfined: bool = False

    @property
    def learned(self) -> bool:
        """A reward model, named in the settings, and no function."""
        return self.path == LEARNED

    @property
    def jailed(self) -> bool:
        executes = self.executes or (self.path in BUILT_IN and BUILT_IN.constant(self.path, "executes", False))
        return executes and not self.unconfined

    def __post_init__(self) -> None:
        given = f"reward {self.name!r}: got"
        if not self.name or "/" in self.name:
            raise ValueError(f"{given} name={self.name!r}; allowed: any text without '/', which divides a reward from its parts")
        if not 0 < self.timeout_s < math.inf or not math.isfinite(self.weight):
            raise ValueError(f"{given} timeout_s={self.timeout_s}, weight={self.weight}; allowed: timeout_s > 0, both finite")
        if [self.gate, self.gold, self.weight != 1].count(True) > 1:
            told = f"gate={self.gate}, gold={self.gold}, weight={self.weight}"
            raise ValueError(
                f"{given} {told}; allowed: a weight, a gate or gold; a gate multiplies and gold is not trained on: drop the others"
            )


def gold_names(specs: Iterable[RewardSpec]) -> list[str]:
    """The rewards that are measured and never trained on."""
    return [spec.name for spec in specs if spec.gold]


def score(specs: Sequence[RewardSpec], parts: Mapping[str, Part]) -> Score:
    """Total: the weighted sum of values times the product of the gates; None where a reward that counts has failed or none of the sum
    applies. A reward that does not apply leaves the sum, and a gate that does not apply stands open."""
    counted = [(spec, parts[spec.name]) for spec in specs if not spec.gold]
    gates = math.prod(part.value for spec, part in counted if spec.gate and part.value is not None)
    added = {spec.name: (spec, part.value) for spec, part in counted if not spec.gate and part.value is not None}
    terms = {name: Term(spec.weight, gates * value) for name, (spec, value) in added.items()}
    total = gates * math.fsum(spec.weight * value for spec, value in added.values())
    whole = bool(terms) and math.isfinite(total)  # finite values may still overflow in the sum
    return Score(None if any(part.status in FAILURES for _, part in counted) or not whole else total, parts, terms)


def failure_counts(groups: Iterable[Group]) -> dict[str, float]:
    """How often each reward failed, and how: reward_errors/<name>, reward_timeouts/<name>, reward_crashes/<name>,
    reward_not_finite/<name>. What did not happen has no key."""
    failed = Counter(f"{FAILURES[part.status]}/{name}" for name, part, _, _ in _outcomes(groups) if part.status in FAILURES)
    return {key: float(times) for key, times in failed.items()}


def too_many_failures(groups: Iterable[Group], limit: float = 0.5) -> str | None:
    """Text that names the reward, its share of failures and one example, where a reward failed on more than `limit` of the responses:
    such a run would learn from what is left, or from nothing. With a limit of 0, of any failure at all."""
    outcomes = list(_outcomes(groups))
    for name, times in Counter(name for name, _, _, _ in outcomes).items():
        failed = [outcome for outcome in outcomes if outcome[0] == name and outcome[1].status in FAILURES]
        if len(failed) > limit * times:
            _, part, prompt, response = failed[0]
            allowed = f"; allowed: at most {limit:.0%}" if limit > 0 else ""
            share = f"{len(failed)} of {times} responses ({len(failed) / times:.0%}{allowed})"
            example = f"Prompt {prompt.text[-200:]!r}, response {response.text[-200:]!r}"
            return f"reward {name!r} failed on {share}. {part.status}: {part.note}. {example}"
    return None


def _outcomes(groups: Iterable[Group]) -> Iterator[tuple[str, Part, Prompt, Response]]:
    for group in groups:
        for response in group.responses:
            assert response.score is not None, "a response that was not scored: wait for pending.result()"
            for name, part in response.score.parts.items():
                yield name, part, group.prompt, response
