"""Will it learn? Before a run: what the starting model does with a share of the prompts, and what reinforcement learning can make of it.

    p         pass rate of an answer                                        of each prompt, by G = num_responses answers and more
    signal    share of groups whose answers are worth different sums       only these teach
    forecast  1 - p^G - (1 - p)^G at the mean p                            above `signal` where some prompts are easy and others hopeless
    pass@64   beside pass@1: what there is to lift (arXiv:2504.13837)
    chance    what guessing earns: the commonest gold answer, another row's, the question

Prompts are taken until the interval of `signal` is WIDTH to each side, or there are MOST, or the time is up. Left out: how fast a learning
rate learns, or whether it is too high; that is seen in the run.
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
EASY, TOO_EASY, FEW_FORMED = 0.9, 0.95, 0.5

Name = Literal["ready", "too hard", "too easy", "nothing to verify", "badly formed"]


@dataclass(frozen=True)
class Verdict:
    """In one line, why, and what to do."""

    name: Name
    why: str
    next: str


@dataclass(frozen=True)
class Readiness:
    """What was measured. `groups` are the answers themselves, judged."""

    pass_rate: Interval
    signal: Interval
    forecast: float
    truncated: float
    formed: float  # answers that end with something said
    headroom: Mapping[str, Interval]  # pass@1 and pass@MANY of `deep` prompts
    deep: int
    chance: Mapping[str, float]
    repeated: int  # training prompts that occur twice, of those looked at
    leaked: int  # held-out prompts that are among them
    size: int  # answers a group
    groups: tuple[Group, ...]
    passed: tuple[tuple[bool, ...], ...]

    @property
    def per_useful(self) -> float | None:
        """Answers to be sampled for a group that teaches."""
        return self.size / self.signal.value if self.signal.value > 0 else None


def readiness(
    sampler: Sampler, rows: Rows, held_out: Rows, workers: RewardWorkers, settings: OnlineSettings, sampling: Sampling, eval: EvalSettings
) -> Readiness:
    """Samples and judges. Training rows are taken in the order of the run's first steps."""
    began, size = time.perf_counter(), max(2, settings.num_responses)
    limit = min(MOST, rows.task.num_rows("train") or MOST)
    groups: list[Group] = []
    signal = Interval(0.0, 0.0, 1.0)
    while not groups or (len(groups) < limit and time.perf_counter() - began < SECONDS):
        if len(groups) >= LEAST and signal.high - signal.low <= 2 * WIDTH:
            break
        prompts = rows.prompts_from(len(groups), min(ROUND, limit - len(groups)))
        groups += in_order(prompts, workers.score(sampler.sample(prompts, size, sampling, rows.seed)))
        signal = mean_interval([float(len(set(group.without_failures().totals)) > 1) for group in groups])
    gold = gold_names(workers.specs)
    passed = [_passed(group, gold, eval) for group in groups]
    rates = [fmean(each) for each in passed if each]
    pass_rate = mean_interval(rates or [0.0])
    seconds = (time.perf_counter() - began) / (len(groups) * size)  # an answer
    deep = [group.prompt for group in groups[: min(DEEP, int(SECONDS / (seconds * MANY)))]]
    wide = [_passed(group, gold, eval) for group in workers.score(sampler.sample(deep, MANY, sampling, rows.seed + 1))] if deep else []
    wide = [each for each in wide if len(each) == MANY]
    ks = {f"pass@{k}": mean_interval([pass_at_k(MANY, sum(each), k) for each in wide]) for k in (1, MANY)} if wide else {}
    responses = [response for group in groups for response in group.responses]
    texts = [group.prompt.text for group in groups]
    p = pass_rate.value
    return Readiness(
        pass_rate, signal, 1 - p**size - (1 - p) ** size,
        fmean(r.stop == "length" for r in responses), fmean(_formed(r) for r in responses), ks, len(wide),
        _chance(groups, rows, workers, gold, eval), len(texts) - len(set(texts)),
        len({prompt.text for prompt in held_out.held_out(eval.num_prompts)} & set(texts)), size, tuple(groups), tuple(passed),
    )  # fmt: skip


def _passed(group: Group, gold: Sequence[str], eval: EvalSettings) -> tuple[bool, ...]:
    """Of each answer; one whose reward failed has not passed."""
    values = [judgement(response, gold) for response in group.responses]
    return tuple(value is not None and eval.passes(value) for value in values)


def _formed(response: Response) -> bool:
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
    said = [[continuation(rows.tokenizer, group.prompt, each[row]) for each in guesses.values()] for row, group in enumerate(groups)]
    asked = [Group(group.prompt, tuple(each)) for group, each in zip(groups, said, strict=True)]
    passed = [_passed(group, gold, eval) for group in workers.score(asked)]
    return {name: fmean(each[i] for each in passed) for i, name in enumerate(guesses)}


def verdict(found: Readiness, settings: OnlineSettings) -> Verdict:
    """By rule, the first that holds."""
    chance = max(found.chance.values(), default=0.0)
    useful = found.signal.value * settings.prompts_per_step
    rate, guess = f"{found.pass_rate.value:.0%} of its answers pass", max(found.chance, key=found.chance.__getitem__, default="")
    if found.formed < FEW_FORMED:
        cut = f"{found.truncated:.0%} are cut off at max_tokens" if found.truncated > 0.3 else "most say nothing after their thought"
        told = f"only {found.formed:.0%} of its answers end with something said: {cut}"
        return Verdict("badly formed", told, "raise sampling.max_tokens, or teach the form first: algorithm lm on a few hundred answers")
    if chance >= 0.5 and found.pass_rate.low <= chance:
        told = f"{rate}, and {guess} alone passes on {chance:.0%}: a rising reward would show nothing"
        return Verdict("nothing to verify", told, "balance the answers, or ask for more than can be guessed")
    if found.pass_rate.value >= TOO_EASY or (found.pass_rate.value >= EASY and useful < USEFUL):
        return Verdict("too easy", f"{rate}; {useful:.1f} groups a step teach", "take harder prompts; those it fails are few")
    if useful < USEFUL:
        deep = found.headroom.get(f"pass@{MANY}")
        told = f"{rate}, and {useful:.1f} of {settings.prompts_per_step} groups a step have answers of different worth"
        if deep is not None and deep.value > 0.2:
            sized = f"a larger group (train.num_responses: {MANY}), for in {MANY} tries {deep.value:.0%} of the prompts are answered"
            return Verdict("too hard", told, f"{sized}; or fine-tune on its own right answers first (recipes/rft.yaml)")
        return Verdict(
            "too hard", told, "teach the task first (algorithm lm on right answers), begin with easier prompts, or give partial credit"
        )
    room = f"; {found.headroom[f'pass@{MANY}'].value:.0%} in {MANY} tries" if found.headroom else ""
    return Verdict("ready", f"{rate}{room}; {useful:.1f} of {settings.prompts_per_step} groups a step teach", "ikusei train")
