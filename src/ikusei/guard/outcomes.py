"""The settings of a reward, the total of a response from its rewards' results, and counts of failures.

Left out: lexicographic composition, in which a reward only breaks ties of those before it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ikusei.rewards import BUILT_IN
from ikusei.types import Group, Prompt, Response, RewardResult, Score, Status, Term

LEARNED = "learned"  # the path of a reward that is a reward model
FAILURES: dict[Status, str] = {  # the failed statuses and the metric that counts each
    "error": "reward_errors",
    "timeout": "reward_timeouts",
    "crashed": "reward_crashes",
    "not_finite": "reward_not_finite",
}


@dataclass(frozen=True)
class RewardSpec:
    """The settings of one reward.

    `path` is "package.module:function", "package.module.function", "file.py:function" or the bare name of a built-in. The total of a
    response is the sum of `weight` times value, times the value of each `gate`; a `gold` reward is measured and never trained on.
    `timeout_s` is for one call: for one response, or for the whole group where the reward has TRL's batched signature. `settings` go to
    a reward that is a class or a factory function. A reward that runs model-written code has `executes` and works in a sandbox
    (sandbox.py); where the system does not allow one it is refused, unless it is `unconfined`.
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
        """True for a reward model, which is named in the settings."""
        return self.path == LEARNED

    @property
    def sandboxed(self) -> bool:
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


def score(specs: Sequence[RewardSpec], parts: Mapping[str, RewardResult]) -> Score:
    """total = product of the gates * sum of weight * value. None where a reward that counts has failed, or no summand applies. A reward
    that does not apply is left out of the sum; a gate that does not apply is 1."""
    counted = [(spec, parts[spec.name]) for spec in specs if not spec.gold]
    gates = math.prod(result.value for spec, result in counted if spec.gate and result.value is not None)
    added = {spec.name: (spec, result.value) for spec, result in counted if not spec.gate and result.value is not None}
    terms = {name: Term(spec.weight, gates * value) for name, (spec, value) in added.items()}
    total = gates * math.fsum(spec.weight * value for spec, value in added.values())
    whole = bool(terms) and math.isfinite(total)  # finite values may still overflow in the sum
    return Score(None if any(result.status in FAILURES for _, result in counted) or not whole else total, parts, terms)


def failure_counts(groups: Iterable[Group]) -> dict[str, float]:
    """How often each reward failed, and how: reward_errors/<name>, reward_timeouts/<name>, reward_crashes/<name>,
    reward_not_finite/<name>. Counts of 0 have no key."""
    failed = Counter(f"{FAILURES[result.status]}/{name}" for name, result, _, _ in _outcomes(groups) if result.status in FAILURES)
    return {key: float(times) for key, times in failed.items()}


def too_many_failures(groups: Iterable[Group], limit: float = 0.5) -> str | None:
    """A message with the reward, its share of failures and one example, where a reward failed on more than `limit` of the responses; else
    None. With a limit of 0, any failure counts."""
    outcomes = list(_outcomes(groups))
    for name, times in Counter(name for name, _, _, _ in outcomes).items():
        failed = [outcome for outcome in outcomes if outcome[0] == name and outcome[1].status in FAILURES]
        if len(failed) > limit * times:
            _, result, prompt, response = failed[0]
            allowed = f"; allowed: at most {limit:.0%}" if limit > 0 else ""
            share = f"{len(failed)} of {times} responses ({len(failed) / times:.0%}{allowed})"
            example = f"Prompt {prompt.text[-200:]!r}, response {response.text[-200:]!r}"
            return f"reward {name!r} failed on {share}. {result.status}: {result.note}. {example}"
    return None


def _outcomes(groups: Iterable[Group]) -> Iterator[tuple[str, RewardResult, Prompt, Response]]:
    for group in groups:
        for response in group.responses:
            assert response.score is not None, "a response that was not scored: wait for pending.result()"
            for name, result in response.score.parts.items():
                yield name, result, group.prompt, response
