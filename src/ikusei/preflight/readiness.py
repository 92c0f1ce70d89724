"""Will it learn? Before a run: sample the starting model on some training prompts, and say what reinforcement learning can make of that.

    pass rate  p of an answer, of G = num_responses answers to each prompt
    signal     share of groups whose rewards are not all equal: only these give a gradient
    forecast   1 - p^G - (1 - p)^G at the mean p: above `signal` where some prompts are easy and others hopeless
    headroom   pass@64 beside pass@1: what there is to lift (arXiv:2504.13837)
    chance     how often a guess passes: the commonest gold answer, another row's answer, the question itself

Prompts are taken until the interval of `signal` is WIDTH to each side, there are MOST of them, or the time is up. Left out: whether the
learning rate is too low or too high; the run shows that.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from ikusei.guard.outcomes import gold_names
from ikusei.guard.workers import RewardWorkers
from ikusei.intervals import Interval, mean_interval, pass_at_k
from ikusei.loops.data import Rows
from ikusei.loops.evaluate import EvalSettings, judgement
from ikusei.loops.online import OnlineSettings
from ikusei.loops.order import in_order
from ikusei.protocols import Sampler
from ikusei.text.answer import split_thought
from ikusei.text.chat import continuation
from ikusei.types import Group, Response, Sampling

WIDTH, LEAST, MOST, ROUND = 0.1, 64, 128, 16  # of the interval to each side; prompts at least and at most, and at a time
DEEP, MANY = 16, 64  # at most so many prompts are answered so many times, for the headroom
SECONDS = 60.0  # no new round after; and the headroom is measured on as many prompts as this allows again
USEFUL = 2.0  # groups a step that teach: fewer, and sixty steps hardly move it
EASY, TOO_EASY, FEW_COMPLETE = 0.9, 0.95, 0.5

Name = Literal["ready", "too hard", "too easy", "nothing to verify", "badly formed"]


@dataclass(frozen=True)
class ReadinessVerdict:
    """In a word, why, and what to do next."""

    name: Name
    why: str
    next: str


@dataclass(frozen=True)
class Passing:
    """How often answers pass, and how many groups of `group_size` answers differ in reward: the others give no gradient."""

    pass_rate: Interval
    signal: Interval  # share of groups whose rewards are not all equal
    forecast: float  # the same share, if every prompt had the mean pass rate
    group_size: int

    @property
    def answers_per_useful_group(self) -> float | None:
        """Answers to be sampled for one group with reward variance; None where no group has any."""
        return self.group_size / self.signal.value if self.signal.value > 0 else None


@dataclass(frozen=True)
class Form:
    """Shares of answers: cut off at max_tokens; ended by themselves with something after the thought."""

    truncated: float
    complete: float


@dataclass(frozen=True)
class Headroom:
    """pass@1 and pass@MANY, by name, of so many prompts that were answered MANY times; empty where time did not allow it."""

    pass_at: Mapping[str, Interval]
    num_prompts: int

    @property
    def deep(self) -> Interval | None:
        """pass@MANY."""
        return self.pass_at.get(f"pass@{MANY}")


@dataclass(frozen=True)
class Overlap:
    """Of the prompts that were looked at: training prompts that occur twice, and held-out prompts that are among them."""

    repeated: int
    held_out: int


@dataclass(frozen=True)
class Readiness:
    """What was measured of the starting model. `groups` are the sampled answers with their rewards; `chance` is how often each kind of
    guess passes."""

    passing: Passing
    form: Form
    headroom: Headroom
    chance: Mapping[str, float]
    overlap: Overlap
    groups: tuple[Group, ...]


def measure_readiness(
    sampler: Sampler, rows: Rows, held_out: Rows, workers: RewardWorkers, settings: OnlineSettings, sampling: Sampling, eval: EvalSettings
) -> Readiness:
    """Samples and scores. Training rows are taken in the order of the run's first steps."""
    began, size = time.perf_counter(), max(2, settings.num_responses)
    gold = gold_names(workers.specs)
    groups = _sample_until_sure(sampler, rows, workers, size, sampling)
    passed = [_passed(group, gold, eval) for group in groups]
    seconds_per_answer = (time.perf_counter() - began) / (len(groups) * size)

    num_deep = min(DEEP, int(SECONDS / (seconds_per_answer * MANY)))
    deep_prompts = [group.prompt for group in groups[:num_deep]]
    deep_groups = workers.score(sampler.sample(deep_prompts, MANY, sampling, rows.seed + 1)) if deep_prompts else []
    deep_passed = [_passed(group, gold, eval) for group in deep_groups]

    responses = [response for group in groups for response in group.responses]
    texts = [group.prompt.text for group in groups]
    held_out_texts = {prompt.text for prompt in held_out.held_out(eval.num_prompts)}
    return Readiness(
        passing=_passing(groups, passed, size),
        form=Form(
            truncated=fmean(response.stop == "length" for response in responses),
            complete=fmean(_is_complete(response) for response in responses),
        ),
        headroom=_headroom(deep_passed),
        chance=_chance(groups, rows, workers, gold, eval),
        overlap=Overlap(repeated=len(texts) - len(set(texts)), held_out=len(held_out_texts & set(texts))),
        groups=tuple(groups),
    )


def _sample_until_sure(sampler: Sampler, rows: Rows, workers: RewardWorkers, size: int, sampling: Sampling) -> list[Group]:
    """Groups of `size` scored answers, ROUND prompts at a time: until the interval of `signal` is narrow enough, there are MOST, or the
    time is up."""
    began, limit = time.perf_counter(), min(MOST, rows.task.num_rows("train") or MOST)
    groups: list[Group] = []
    while not groups or (len(groups) < limit and time.perf_counter() - began < SECONDS):
        signal = _signal(groups) if groups else None
        if signal and len(groups) >= LEAST and signal.high - signal.low <= 2 * WIDTH:
            break
        prompts = rows.prompts_from(len(groups), min(ROUND, limit - len(groups)))
        groups += in_order(prompts, workers.score(sampler.sample(prompts, size, sampling, rows.seed)))
    return groups


def _signal(groups: Sequence[Group]) -> Interval:
    """The share of groups whose rewards are not all equal."""
    return mean_interval([float(len(set(group.without_failures().totals)) > 1) for group in groups])


def _passing(groups: Sequence[Group], passed: Sequence[Sequence[bool]], size: int) -> Passing:
    pass_rate = mean_interval([fmean(each) for each in passed if each] or [0.0])
    p = pass_rate.value
    return Passing(pass_rate, _signal(groups), forecast=1 - p**size - (1 - p) ** size, group_size=size)


def _headroom(passed: Sequence[Sequence[bool]]) -> Headroom:
    """From prompts of which all MANY answers were scored."""
    whole = [each for each in passed if len(each) == MANY]
    if not whole:
        return Headroom({}, 0)
    return Headroom({f"pass@{k}": mean_interval([pass_at_k(MANY, sum(each), k) for each in whole]) for k in (1, MANY)}, len(whole))


def _passed(group: Group, gold: Sequence[str], eval: EvalSettings) -> tuple[bool, ...]:
    """Of each answer; one whose reward failed has not passed."""
    values = [judgement(response, gold) for response in group.responses]
    return tuple(value is not None and eval.passes(value) for value in values)


def _is_complete(response: Response) -> bool:
    """It ended by itself, and something stands after its thought."""
    return response.stop != "length" and bool(split_thought(response.text)[1].strip())


def _chance(groups: Sequence[Group], rows: Rows, workers: RewardWorkers, gold: Sequence[str], eval: EvalSettings) -> dict[str, float]:
    """How often guesses pass; {} where the rows have no gold answers."""
    answers = [str(group.prompt.columns["answer"]) for group in groups if group.prompt.columns.get("answer") is not None]
    if len(answers) < len(groups) or not answers:
        return {}
    common = Counter(answers).most_common(1)[0][0]
    questions = [group.prompt.asked if isinstance(group.prompt.asked, str) else group.prompt.text for group in groups]
    guesses = {"the commonest answer": [common] * len(groups), "another row's answer": answers[1:] + answers[:1], "the question": questions}
    guessed = [
        Group(group.prompt, tuple(continuation(rows.tokenizer, group.prompt, each[row]) for each in guesses.values()))
        for row, group in enumerate(groups)
    ]
    passed = [_passed(group, gold, eval) for group in workers.score(guessed)]
    return {name: fmean(each[i] for each in passed) for i, name in enumerate(guesses)}


def readiness_verdict(measured: Readiness, settings: OnlineSettings) -> ReadinessVerdict:
    """The first rule that holds."""
    passing, form = measured.passing, measured.form
    useful = passing.signal.value * settings.prompts_per_step  # groups of a step that have reward variance
    guess = max(measured.chance, key=measured.chance.__getitem__, default="")
    chance = measured.chance.get(guess, 0.0)
    rate = f"{passing.pass_rate.value:.0%} of its answers pass"
    if form.complete < FEW_COMPLETE:
        cut = f"{form.truncated:.0%} are cut off at max_tokens" if form.truncated > 0.3 else "most say nothing after their thought"
        why = f"only {form.complete:.0%} of its answers end with something said: {cut}"
        return ReadinessVerdict(
            "badly formed", why, "raise sampling.max_tokens, or teach the form first: algorithm lm on a few hundred answers"
        )
    if chance >= 0.5 and passing.pass_rate.low <= chance:
        why = f"{rate}, and {guess} alone passes on {chance:.0%}: a rising reward would show nothing"
        return ReadinessVerdict("nothing to verify", why, "balance the answers, or ask for more than can be guessed")
    if passing.pass_rate.value >= TOO_EASY or (passing.pass_rate.value >= EASY and useful < USEFUL):
        why = f"{rate}; {useful:.1f} groups a step have reward variance"
        return ReadinessVerdict("too easy", why, "take harder prompts; those it fails are few")
    if useful < USEFUL:
        why = f"{rate}, and {useful:.1f} of {settings.prompts_per_step} groups a step have reward variance"
        return ReadinessVerdict("too hard", why, _next_of_too_hard(measured.headroom.deep))
    room = f"; {measured.headroom.deep.value:.0%} in {MANY} tries" if measured.headroom.deep else ""
    why = f"{rate}{room}; {useful:.1f} of {settings.prompts_per_step} groups a step have reward variance"
    return ReadinessVerdict("ready", why, "ikusei train")


def _next_of_too_hard(deep: Interval | None) -> str:
    """What to do, by pass@MANY."""
    if deep is not None and deep.value > 0.2:
        sized = f"a larger group (train.num_responses: {MANY}), for in {MANY} tries {deep.value:.0%} of the prompts are answered"
        return f"{sized}; or fine-tune on its own right answers first (recipes/rft.yaml)"
    return "teach the task first (algorithm lm on right answers), begin with easier prompts, or give partial credit"
