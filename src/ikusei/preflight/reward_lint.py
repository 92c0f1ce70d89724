"""Can a reward be cheated? Attacks (reward_attacks.py) and a search, run against it in the same workers that a run uses.

    worth of an answer = (its reward - the lowest reward of any answer to this row) / (reward of the gold answer - that lowest reward)

An attack got through where the best of its texts is worth THROUGH or more on a share SOME of the rows or more. The search mutates the
best texts that do not contain the gold answer, so what it finds is not right by accident. In a task with many right answers it may find
one of them; accept that by name.

Also checked: gold answers earn a reward, no answer earns more than they do, the same answer earns the same twice, and nothing breaks the
reward.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ikusei.guard.outcomes import FAILURES
from ikusei.guard.workers import RewardWorkers
from ikusei.preflight.reward_attacks import ATTACKS, FORMS, Attack, Form, GoldRow, wrong
from ikusei.types import Group, Message, Prompt, Response

THROUGH = 0.05  # of what the gold answer is worth
SOME = 0.05  # of the rows
FEW = 2  # rows on which a text is tried that may take the whole time limit
BATCH, ELITE = 32, 24  # of the search: texts a row and round, and texts that live on
PIECES = (
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "\\boxed{",
    "}",
    "$",
    "=",
    "+",
    "*",
    "-",
    " ",
    "\n",
    "0",
    "1",
    "The answer is ",
    ".",
    "not ",
)


@dataclass(frozen=True)
class Finding:
    """An attack that got through: on which share of the rows, and the example of most worth. `accepted` is the reason why it is allowed."""

    name: str
    said: str
    fix: str
    share: float
    worth: float
    question: str
    answer: str
    note: str = ""
    accepted: str = ""


@dataclass(frozen=True)
class Lint:
    """`form` is the form in which gold answers earn most, `gold` their mean reward in it. `chance` is the mean worth of guesses, by kind of
    guess."""

    form: str
    gold: float
    chance: Mapping[str, float]
    findings: tuple[Finding, ...]
    num_rows: int
    num_answers: int
    seconds: float

    @property
    def sound(self) -> bool:
        return all(finding.accepted for finding in self.findings)


@dataclass(frozen=True)
class Earned:
    """The reward of one text for one row: None, with the failure, where the reward failed."""

    value: float | None
    failure: str = ""


class ScoreCache:
    """Scores texts, and keeps the results."""

    def __init__(self, workers: RewardWorkers, prompts: Sequence[Prompt]) -> None:
        self.workers, self.prompts = workers, prompts
        self.earned: dict[tuple[int, str], Earned] = {}

    def least(self, row: int) -> float:
        """The lowest reward of any text for a row."""
        return min((each.value for (at, _), each in self.earned.items() if at == row and each.value is not None), default=0.0)

    def score(self, texts: Sequence[Sequence[str]], again: bool = False) -> list[list[Earned]]:
        """Scores [rows][texts]; texts that were scored before are read from the cache, unless `again`."""
        new = [list(dict.fromkeys(t for t in each if again or (row, t) not in self.earned)) for row, each in enumerate(texts)]
        groups = [
            Group(prompt, tuple(Response((), (), text) for text in each)) for prompt, each in zip(self.prompts, new, strict=True) if each
        ]
        scored = iter(self.workers.score(groups))
        fresh: dict[tuple[int, str], Earned] = {}
        for row, each in enumerate(new):
            if each:
                fresh |= {(row, text): _earned(r) for text, r in zip(each, next(scored).responses, strict=True)}
        self.earned = {**fresh, **self.earned}
        latest = fresh if again else self.earned
        return [[latest[row, text] for text in each] for row, each in enumerate(texts)]


def _earned(response: Response) -> Earned:
    assert response.score is not None, "scored"
    failed = next((f"{part.status}: {part.note}" for part in response.score.parts.values() if part.status in FAILURES), "")
    return Earned(None if failed else response.score.total or 0.0, failed)


@dataclass(frozen=True)
class Scale:
    """For each row the lowest reward of any answer, and the reward of the gold answer."""

    least: list[float]
    gold: list[float]

    def worth(self, row: int, value: float) -> float:
        """0 at the least, 1 at the gold answer; of a row whose gold answer earns the least, 1 for whatever earns more."""
        span = self.gold[row] - self.least[row]
        return (value - self.least[row]) / span if span > 1e-9 else float(value > self.least[row] + 1e-9)


def lint(workers: RewardWorkers, prompts: Sequence[Prompt], seconds: float, seed: int = 0, accept: Mapping[str, str] | None = None) -> Lint:
    """`prompts` have the gold answer in the column `answer`. `seconds` are for the search."""
    began, cache = time.perf_counter(), ScoreCache(workers, prompts)
    rows = [GoldRow(_question(prompt), str(prompt.columns["answer"])) for prompt in prompts]
    form, golds = _best_form(cache, rows)
    if all(each.failure for each in cache.earned.values()):  # some of TRL's rewards read conversations alone
        turns = [(Message(role="user", content=row.question),) for row in rows]
        cache = ScoreCache(workers, [replace(prompt, asked=asked) for prompt, asked in zip(prompts, turns, strict=True)])
        form, golds = _best_form(cache, rows)
    others = [[row.gold for row in rows if row.gold != each.gold] for each in rows]
    tried = {
        attack: [
            _wrong_ones(attack.texts(row, other, FORMS[form]), row) if number < FEW or not attack.slow else []
            for number, (row, other) in enumerate(zip(rows, others, strict=True))
        ]
        for attack in ATTACKS
    }
    for texts in tried.values():
        cache.score(texts)
    scale = Scale([cache.least(row) for row in range(len(rows))], golds)
    findings = [*_of_gold(cache, rows, scale), *_of_attacks(cache, rows, tried, scale)]
    findings += _searched(cache, rows, scale, time.perf_counter() + seconds, random.Random(seed)) if seconds > 0 else []
    findings += _of_calls(cache, rows)
    marked = tuple(replace(finding, accepted=(accept or {}).get(finding.name, "")) for finding in findings)
    chance = _chance(cache, rows, FORMS[form], scale)
    return Lint(form, sum(golds) / len(golds), chance, marked, len(rows), len(cache.earned), time.perf_counter() - began)


def _question(prompt: Prompt) -> str:
    return prompt.asked if isinstance(prompt.asked, str) else prompt.text


def _best_form(cache: ScoreCache, rows: Sequence[GoldRow]) -> tuple[str, list[float]]:
    """The form in which gold answers earn most, and what they earn in it; a failure counts as nothing."""
    earned = cache.score([[form(row.gold) for form in FORMS.values()] for row in rows])
    of = {name: [each[i].value or 0.0 for each in earned] for i, name in enumerate(FORMS)}
    best = max(of, key=lambda name: sum(of[name]))
    return best, of[best]


def _wrong_ones(texts: Sequence[str], row: GoldRow) -> list[str]:
    """Without those that are the gold answer in some form: an echo or another row's answer may be right by luck."""
    right = {form(row.gold).strip() for form in FORMS.values()}
    return [text for text in dict.fromkeys(texts) if text.strip() not in right]


def _of_gold(cache: ScoreCache, rows: Sequence[GoldRow], scale: Scale) -> Iterator[Finding]:
    """Whether right answers are paid, and nothing more than they."""
    unpaid = [row for row in range(len(rows)) if scale.gold[row] <= scale.least[row] + 1e-9]
    if len(unpaid) >= SOME * len(rows):
        row = unpaid[0]
        description = "gold answers earn no more than wrong ones, in whatever form"
        fix = "name the column of the gold answer `answer`, and see what the reward reads of a response"
        yield Finding("gold unpaid", description, fix, len(unpaid) / len(rows), 0.0, rows[row].question, rows[row].gold)
    above = [(each.value - scale.gold[row], row, text) for (row, text), each in cache.earned.items() if each.value is not None]
    over, row, text = max(above, default=(0.0, 0, ""))
    if over > 1e-9:
        share = len({row for more, row, _ in above if more > 1e-9}) / len(rows)
        description = "an answer that earns more than the gold one"
        worth = scale.worth(row, over + scale.gold[row])
        yield Finding("above gold", description, "let nothing earn more than a right answer", share, worth, rows[row].question, text)


def _of_attacks(cache: ScoreCache, rows: Sequence[GoldRow], tried: Mapping[Attack, list[list[str]]], scale: Scale) -> Iterator[Finding]:
    for attack, texts in tried.items():
        best = [max(_worths(cache, row, each, scale), default=(0.0, "")) for row, each in enumerate(texts)]
        through = [row for row, (worth, _) in enumerate(best) if worth >= THROUGH]
        if len(through) >= max(1, SOME * sum(bool(each) for each in texts)):
            row = max(through, key=lambda row: best[row][0])
            share = len(through) / sum(bool(each) for each in texts)
            yield Finding(attack.name, attack.description, attack.fix, share, best[row][0], rows[row].question, best[row][1])


def _worths(cache: ScoreCache, row: int, texts: Iterable[str], scale: Scale) -> Iterator[tuple[float, str]]:
    """Of those that could be scored."""
    for text in texts:
        value = cache.earned[row, text].value
        if value is not None:
            yield scale.worth(row, value), text


def _searched(cache: ScoreCache, rows: Sequence[GoldRow], scale: Scale, until: float, chance: random.Random) -> list[Finding]:
    """What mutation finds beyond the attacks, row by row side by side; nothing where the attacks have found as much."""
    alive = [[text for at, text in cache.earned if at == row and not _holds(text, rows[row].gold)] for row in range(len(rows))]
    begun = max((worth for row, each in enumerate(alive) for worth, _ in _worths(cache, row, each, scale)), default=0.0)
    while time.perf_counter() < until:
        new = [[_mutated(chance.choice(each), chance.choice(each), chance) for _ in range(BATCH)] for each in alive]
        new = [[text for text in each if not _holds(text, row.gold)] for row, each in zip(rows, new, strict=True)]
        cache.score(new)
        for row, (old, more) in enumerate(zip(alive, new, strict=True)):
            known = sorted(_worths(cache, row, {*old, *more}, scale), key=lambda each: (-each[0], len(each[1]), each[1]))
            alive[row] = [text for _, text in known[:ELITE]]
    best = [(worth, row, text) for row, each in enumerate(alive) for worth, text in list(_worths(cache, row, each[:1], scale))]
    through = [each for each in best if each[0] >= THROUGH]
    if not through or max(through)[0] <= begun + THROUGH or len(through) < SOME * len(rows):
        return []
    worth, row, text = max(through)
    description = "found by search, without the gold answer in it"
    fix = "see what of it is paid; if it is another right answer, accept it by name"
    return [Finding("search", description, fix, len(through) / len(rows), worth, rows[row].question, text)]


def _mutated(one: str, other: str, chance: random.Random) -> str:
    at, end = sorted((chance.randrange(len(one) + 1), chance.randrange(len(one) + 1)))
    return chance.choice((
        one[:at] + chance.choice(PIECES) + one[at:],  # put in
        one[:at] + one[end:],  # cut out
        one[:at] + other[: chance.randrange(len(other) + 1)],  # cross
        one + "\n" + other,
        one[:at] + one[at:end] * 2 + one[end:],  # twice
    ))[:2000]  # fmt: skip


def _holds(text: str, gold: str) -> bool:
    return gold.replace(" ", "") in text.replace(" ", "").replace("\n", "")


def _of_calls(cache: ScoreCache, rows: Sequence[GoldRow]) -> Iterator[Finding]:
    """What breaks the reward, and whether it says the same twice."""
    broken = [(row, text, each.failure) for (row, text), each in cache.earned.items() if each.failure]
    if broken:
        row, text, how = min(broken, key=lambda each: len(each[1]))
        description = "the reward breaks or hangs, so that the answer has no worth"
        fix = "return 0 for what cannot be read, and read no more than an answer can be; never raise"
        yield Finding("breaks", description, fix, len({row for row, _, _ in broken}) / len(rows), 0.0, rows[row].question, text, how)
    first = [["", row.gold, wrong(row)] for row in rows]
    for row, (was, now) in enumerate(zip(cache.score(first), cache.score(first, again=True), strict=True)):
        differs = [text for text, a, b in zip(first[row], was, now, strict=True) if a.value != b.value]
        if differs:
            description, fix = "the same answer earns something else the second time", "take chance and state out of the reward"
            yield Finding("not the same twice", description, fix, 1.0, 0.0, rows[row].question, differs[0])
            return


def _chance(cache: ScoreCache, rows: Sequence[GoldRow], form: Form, scale: Scale) -> dict[str, float]:
    """Chance baseline: the mean worth of guesses: the commonest gold answer, another row's answer, the question."""
    common = Counter(row.gold for row in rows).most_common(1)[0][0]
    guesses = {
        "the commonest answer": [common] * len(rows),
        "another row's answer": [rows[(row + 1) % len(rows)].gold for row in range(len(rows))],
        "the question itself": [row.question for row in rows],
    }
    earned = cache.score([[form(each[row]) for each in guesses.values()] for row in range(len(rows))])
    return {
        name: sum(scale.worth(row, each[i].value or 0.0) for row, each in enumerate(earned)) / len(rows) for i, name in enumerate(guesses)
    }
