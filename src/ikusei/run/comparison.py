"""Compare two models on the same prompts: differences with intervals, and the prompts that only one of them solves.

    difference     mean over prompts of (a_i - b_i), the samples of a prompt being averaged first: prompts are paired, so what is hard for
                   both does not blur it. The interval is by drawing prompts anew (paired bootstrap, 2.5 to 97.5 % of 4,000 draws), of
                   shares with two pseudo-prompts, one that is all gain and one that is all loss: without them the 95 % interval of a gain
                   that few prompts make covers 73 to 84 % (bench/coverage.py)
    solved         a prompt is solved where one of its n samples is right
    crossing       the k from which on the first model, ahead at k = 1, is ahead no more; between two k by a line over log k

Several seeds of one recipe are read as one experiment: each prompt's samples are those of all seeds together.
Only evaluations of the same prompts with the same settings are compared; otherwise the error says what differs.

Left out: corrections for many comparisons at once.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from ikusei.intervals import Interval, pass_at_k, tries
from ikusei.run.read import Evaluation, RunRecord, read_run

DRAWS = 4000
PSEUDO_PROMPTS = (-1.0, 1.0)
JUDGES = "the judges"  # None where the task brings them
JUDGING = ("path", "settings", "weight", "gate")  # of a reward, what its word depends on
ALIKE = ("num_samples", "pass_at", "form")  # of the section eval; the whole section sampling besides


@dataclass(frozen=True)
class Experiment:
    """The evaluation of one model: the samples of each prompt, over all seeds."""

    name: str
    right: Mapping[str, tuple[bool, ...]]  # by prompt
    tokens: Mapping[str, float]  # the mean over its samples
    asked: Mapping[str, str]  # what the prompt says
    how: Mapping[str, Any]  # how it was measured
    answers: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)  # the samples as they are stored

    @property
    def samples(self) -> int:
        return min(map(len, self.right.values()))

    def pass_at(self, k: int) -> dict[str, float]:
        return {prompt: pass_at_k(len(each), sum(each), k) for prompt, each in self.right.items()}

    @property
    def solved(self) -> frozenset[str]:
        return frozenset(prompt for prompt, each in self.right.items() if any(each))


@dataclass(frozen=True)
class Comparison:
    """`one` minus `other`. `gains` is by k; `only_one` and `only_other` are the prompts that only one of them solves, as text."""

    one: str
    other: str
    gains: dict[int, Interval]
    length: Interval  # tokens
    only_one: tuple[str, ...]
    only_other: tuple[str, ...]
    both: int
    neither: int
    crossing: float | None

    @property
    def most(self) -> int:
        """The largest k."""
        return max(self.gains)


def read_named(name: str) -> Experiment:
    """A model as a command names it: a run folder, or several with commas between, which are seeds of one recipe; with `:before`, what
    they began with."""
    before = name.endswith(":before")
    return read_experiment(name, [Path(each) for each in name.removesuffix(":before").split(",")], "before" if before else "after")


def read_experiment(name: str, runs: Sequence[Path], when: str = "after") -> Experiment:
    """The measurement `when` ("before" or "after") of runs that differ in nothing but their seed.

    Raises:
        ValueError: one is no run, was not measured so, or was measured differently from the first.
    """
    every, hows, raised = [], [], []
    for run in runs:
        record = read_run(run)
        if "stages" in record.settings:
            inside = ", ".join(sorted(str(each.parent) for each in run.glob("*/run.json")))
            raise ValueError(f"{run}: a run of stages; compare one of them: {inside}")
        made = record.newest(when)
        if made is None or not made.samples:
            raise ValueError(f"{run}: no samples of an evaluation {when} training; let the run finish, with eval.num_prompts above 0")
        every.append(made)
        hows.append(how_measured(record, run))
        raised.append({name: record.settings.get(name) for name in ("algorithm", "train")})
    different = [differing(hows[0] | raised[0], how | by) for how, by in zip(hows, raised, strict=True)]
    prompts = {row["prompt_id"] for row in every[0].samples}
    different += ["their prompts differ"] * any({row["prompt_id"] for row in each.samples} != prompts for each in every)
    if any(different):
        told = next(filter(None, different))
        raise ValueError(f"{name}: its runs are no seeds of one experiment: {told}")
    return together(name, every, hows[0])


def together(name: str, every: Sequence[Evaluation], how: Mapping[str, Any]) -> Experiment:
    """The samples of several evaluations that were made alike, as one."""
    right: dict[str, list[bool]] = defaultdict(list)
    tokens: dict[str, list[int]] = defaultdict(list)
    asked: dict[str, str] = {}
    answers: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in (row for made in every for row in made.samples):
        asked[row["prompt_id"]] = row["prompt"]
        if row.get("total", 0.0) is None:
            continue  # its reward failed: nobody knows whether it is right
        right[row["prompt_id"]].append(row["correct"])
        answers[row["prompt_id"]].append(row)
        tokens[row["prompt_id"]].append(row["num_tokens"])
    means = {prompt: fmean(each) for prompt, each in tokens.items()}
    whole = {prompt: tuple(each) for prompt, each in answers.items()}
    return Experiment(name, {prompt: tuple(each) for prompt, each in right.items()}, means, asked, how, whole)


def of_run(record: RunRecord) -> Comparison | None:
    """A run compared with its own start: after minus before."""
    return between(record.after, record.before)


def between(one: Evaluation | None, other: Evaluation | None) -> Comparison | None:
    """`one` minus `other`, of two evaluations that were made alike; None where one has no samples, or their prompts differ."""
    if one is None or other is None or not (one.samples and other.samples):
        return None
    a, b = together(one.name, [one], {}), together(other.name, [other], {})
    return compare(a, b) if a.asked.keys() == b.asked.keys() and a.right.keys() & b.right.keys() else None


def how_measured(record: RunRecord, run: Path) -> dict[str, Any]:
    """The settings that must be equal for a comparison."""
    template = run / "final" / "chat_template.jinja"
    settings = {f"eval.{name}": record.settings.get("eval", {}).get(name) for name in ALIKE}
    settings |= {f"sampling.{name}": value for name, value in record.settings.get("sampling", {}).items()}
    specs = record.settings.get("rewards") or []
    judges = [spec for spec in specs if spec.get("gold")] or specs
    settings[JUDGES] = [{key: value for key, value in spec.items() if key in JUDGING} for spec in judges] or None
    return settings | {"the chat template": template.read_text(encoding="utf-8") if template.is_file() else None}


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """Which settings differ, in words; None where none does."""
    unknown = {JUDGES} if one.get(JUDGES) is None or other.get(JUDGES) is None else set()
    names = [name for name in {**one, **other} if one.get(name) != other.get(name) and name not in unknown]
    long = [name.startswith("the ") or isinstance(one.get(name), dict) for name in names]
    texts = [name if unshown else f"{name} ({one.get(name)} and {other.get(name)})" for name, unshown in zip(names, long, strict=True)]
    return f"{', '.join(texts)} differ" if names else None


def must_be_alike(one: Experiment, other: Experiment) -> None:
    """Raises ValueError where prompts, template or sampling differ, and says which."""
    told = differing(one.how, other.how)
    if told is None and one.asked.keys() != other.asked.keys():
        shared = len(one.asked.keys() & other.asked.keys())
        told = f"{shared} prompts are the same, of {len(one.asked)} and {len(other.asked)}"
    if told is not None:
        raise ValueError(f"{one.name} and {other.name} were not measured alike: {told}; evaluate both by one recipe (ikusei eval)")


def compare(one: Experiment, other: Experiment) -> Comparison:
    """Compare on the prompts to which both have a scored answer. Raises ValueError where they were not measured alike, or there is none."""
    must_be_alike(one, other)
    known = one.right.keys() & other.right.keys()
    if not known:
        raise ValueError(f"{one.name} and {other.name}: no prompt has a judged answer of both; look at their rewards with `ikusei check`")
    one, other = (
        replace(each, **{name: {p: row for p, row in getattr(each, name).items() if p in known} for name in ("right", "tokens")})
        for each in (one, other)
    )
    gains = {k: paired(one.pass_at(k), other.pass_at(k)) for k in tries(min(one.samples, other.samples))}
    only = [tuple(sorted(one.asked[prompt] for prompt in each)) for each in (one.solved - other.solved, other.solved - one.solved)]
    both, neither = len(one.solved & other.solved), len(one.right.keys() - one.solved - other.solved)
    meet = crossing({k: each.value for k, each in gains.items()})
    length = paired(one.tokens, other.tokens, shares=False)
    return Comparison(one.name, other.name, gains, length, only[0], only[1], both, neither, meet)


def paired(one: Mapping[str, float], other: Mapping[str, float], shares: bool = True) -> Interval:
    """The mean difference over the same prompts; `shares` says that both lie between 0 and 1. Of other numbers the interval reaches at
    least as far as one prompt more could move it."""
    values = np.array([one[prompt] - other[prompt] for prompt in one])
    mean, known = float(values.mean()), np.concatenate([values, PSEUDO_PROMPTS]) if shares else values
    drawn = np.random.default_rng(0).integers(len(known), size=(DRAWS, len(known)))
    low, high = map(float, np.quantile(known[drawn].mean(axis=1), [0.025, 0.975]))
    least = 0.0 if shares else float(abs(values).max(initial=0.0) or 1.0) / (len(values) + 1)
    return Interval(mean, min(low, mean - least), max(high, mean + least))


def crossing(gains: Mapping[int, float]) -> float | None:
    """Where a gain that was above 0 at the smallest k comes to 0 for good; None where it never does, or was not above 0."""
    points = sorted(gains.items())
    if not points or points[0][1] <= 0 or points[-1][1] > 0:
        return None
    for (k, gain), (later, then) in reversed([*pairwise(points)]):
        if then <= 0 < gain:
            return math.exp(math.log(k) + (math.log(later) - math.log(k)) * gain / (gain - then))
    return None
