"""Figures of sampled answers to held-out prompts, scored by rewards.

    pass@k         at least one of k answers is right
    maj@k          the commonest of k answers is right (self-consistency, arXiv:2203.11171)
    bon@k          best of k: the one with the highest trained-on reward is right by the gold reward, where there is one
    greedy         the greedy answer is right
    guess@k        chance baseline: k answers drawn from the gold answers of training rows      1 - (1 - q(a))^k, q(a) their share that is a
    commonest@k    chance baseline: the k commonest gold answers of training rows

With few distinct answers, k blind guesses often hit: the baselines say how often. They need a column `answer`; answers are equal when
their letters are. Choices among k are unbiased: means over subsets of k of the n samples, all subsets or a fixed number of random ones.
Every interval is over prompts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from statistics import fmean

from ikusei.eval_metrics.choosing import Vote, answered, best_right_at, right_at
from ikusei.eval_metrics.metric import SHARE, Curve, Figure
from ikusei.intervals import Interval, best_of, mean_interval, pass_at, tries
from ikusei.text.answer import split_thought
from ikusei.types import Group, Response

TRIES, CHOICES = "Right within k tries (pass@k)", "One answer chosen among k"


@dataclass(frozen=True)
class Answers:
    """The answers to each prompt, and the value of each by the judge (None: its reward failed)."""

    groups: Sequence[Group]
    judged: Sequence[Sequence[float | None]]
    greedy: Sequence[float | None]  # of the greedy answer to each prompt; empty where it was not asked for
    passes: Callable[[float], bool]
    rewards: Sequence[str]  # by name
    gold: Sequence[str]  # those of them that are not trained on
    seen: Sequence[str] = ()  # gold answers of training rows, for the chance baselines

    @cached_property
    def responses(self) -> list[Response]:
        return [response for group in self.groups for response in group.responses]

    @cached_property
    def known(self) -> list[list[tuple[Response, float]]]:
        """The answers that were scored, with their values, for each prompt that has any."""
        rows = [zip(group.responses, values, strict=True) for group, values in zip(self.groups, self.judged, strict=True)]
        return [known for row in rows if (known := [(response, value) for response, value in row if value is not None])]

    @cached_property
    def values(self) -> list[list[float]]:
        return [[value for _, value in row] for row in self.known]

    @cached_property
    def right(self) -> list[list[bool]]:
        return [[self.passes(value) for value in row] for row in self.values]

    @cached_property
    def ks(self) -> list[int]:
        """1, 2, 4, ... up to the smallest number of scored answers to a prompt."""
        return tries(min(map(len, self.values)))


def majority(answers: Answers) -> dict[int, Interval]:
    vote = Vote(canonical=cache(answered))
    rows = [([response for response, _ in known], right) for known, right in zip(answers.known, answers.right, strict=True)]
    return {k: mean_interval([right_at(vote, responses, right, k) for responses, right in rows]) for k in answers.ks[1:]}


def best_by_reward(answers: Answers) -> dict[int, Interval]:
    """Only where the gold reward is not trained on. An answer without a total is left out."""
    if not answers.gold:
        return {}
    rows = [
        [(response.total, yes) for (response, _), yes in zip(known, right, strict=True) if response.total is not None]
        for known, right in zip(answers.known, answers.right, strict=True)
    ]
    ks = [k for k in answers.ks[1:] if k <= min(map(len, rows))]
    return {k: mean_interval([best_right_at([total for total, _ in row], [yes for _, yes in row], k) for row in rows]) for k in ks}


def greedy(answers: Answers) -> Interval | None:
    right = [float(answers.passes(value)) for value in answers.greedy if value is not None]
    return mean_interval(right) if right else None


def each_reward(answers: Answers) -> dict[str, Interval]:
    """The mean of each reward over prompts; rewards that scored nothing are left out."""
    intervals = {}
    for name in answers.rewards:
        rows = [[response.score.parts[name].value for response in group.responses if response.score] for group in answers.groups]
        means = [fmean(known) for row in rows if (known := [value for value in row if value is not None])]
        intervals |= {name: mean_interval(means)} if means else {}
    return intervals


def best_reward(answers: Answers) -> dict[int, Interval]:
    """The expected largest reward of k. Left out where rewards are 0 or 1, since it is pass@k there."""
    if all(value in (0, 1) for row in answers.values for value in row):
        return {}
    return {k: mean_interval([best_of(row, k) for row in answers.values]) for k in answers.ks[1:]}


def empty_thoughts(answers: Answers) -> float | None:
    """The share of all answers; None where no answer has a thought."""
    thoughts = [split_thought(response.text)[0] for response in answers.responses]
    return None if set(thoughts) == {None} else sum(thought == "" for thought in thoughts) / len(thoughts)


def gold_answers(answers: Answers) -> list[str]:
    """The gold answer to each prompt; [] where one is missing, or the answers of training rows are not known."""
    gold = [group.prompt.columns.get("answer") for group in answers.groups]
    return [] if None in gold or not answers.seen else [str(answer) for answer in gold]


def guess(answers: Answers) -> dict[int, Interval]:
    counts, asked = Counter(answers.seen), gold_answers(answers)
    shares = [counts[answer] / len(answers.seen) for answer in asked]
    return {k: mean_interval([1 - (1 - share) ** k for share in shares]) for k in answers.ks} if asked else {}


def commonest(answers: Answers) -> dict[int, Interval]:
    asked = gold_answers(answers)
    place = {answer: at for at, (answer, _) in enumerate(Counter(answers.seen).most_common())}
    return {k: mean_interval([float(place.get(answer, k) < k) for answer in asked]) for k in answers.ks} if asked else {}


FIGURES: tuple[Figure, ...] = (
    Figure(
        "pass@1", of=Answers, compute=lambda answers: pass_at(1, answers.right),
        unit=SHARE, large="right at the first try", headline=True,
    ),
    Figure(
        "pass@{k}", of=Answers, compute=lambda answers: {k: pass_at(k, answers.right) for k in answers.ks[1:]},
        unit=SHARE, large="right within {k} tries", curve=Curve(TRIES, note="bands: 95% intervals", fewest=1),
    ),
    Figure("{k}-shot/pass@1", "pass@1 with {k} examples", unit=SHARE),
    Figure("greedy", "greedy answer", Answers, greedy, SHARE, "the most probable token at each step"),
    Figure(
        "maj@{k}", of=Answers, compute=majority, unit=SHARE, members="largest",
        note="the answer that most of {k} give", curve=Curve(CHOICES, note="maj@k: the answer that most of k give"),
    ),
    Figure(
        "bon@{k}", of=Answers, compute=best_by_reward, unit=SHARE, members="largest",
        note="of {k} the one that earns most by the reward",
        curve=Curve(CHOICES, "line", "dotted, bon@k: the one that earns most by what is trained on"),
    ),
    Figure(
        "guess@{k}", of=Answers, compute=guess, unit=SHARE, members="largest",
        note="one of {k} answers of other questions",
        curve=Curve(TRIES, "baseline", "Dashed: chance, by answers of other questions", dash=(4, 3)),
    ),
    Figure("commonest@{k}", of=Answers, compute=commonest, unit=SHARE, members="none", curve=Curve(TRIES, "baseline", dash=(1, 2))),
    Figure(
        "reward", "reward of an answer", Answers, lambda answers: mean_interval([fmean(row) for row in answers.values]),
        note="by the gold rewards where there are any, else what is trained on", large="reward of an answer", headline=True,
    ),
    Figure("{k}-shot/reward", "reward with {k} examples"),
    Figure("rewards/{name}", "reward {name}", Answers, each_reward),
    Figure("best_of_{k}", of=Answers, compute=best_reward, members="none"),  # tells little more than pass@k
    Figure(
        "mean_length", "length of answers", Answers, lambda answers: fmean(len(response.tokens) for response in answers.responses), "tokens"
    ),
    Figure("empty_thoughts", "empty thoughts", Answers, empty_thoughts, SHARE, "share of all answers", large="empty thoughts"),
    Figure(
        "truncated", "cut off at the limit", Answers,
        lambda answers: fmean(response.stop == "length" for response in answers.responses), SHARE,
    ),
    Figure(
        "failed", "answers without a score", Answers,
        lambda answers: fmean(value is None for row in answers.judged for value in row), SHARE, "a reward failed on them",
    ),
)  # fmt: skip
