"""How often one model's answer is better than another's to the same prompt.

    win rate   mean over prompts of w_p,    w_p = mean over the verdicts on a prompt of  1 the first is better, 1/2 a tie, 0 it is worse

so that win rate = wins + ties / 2 where a judge says nothing between. Its interval is over prompts (intervals.py). A verdict comes from

    numbers    a reward says one for each answer, and every answer of the one is held against every answer of the other: within `tie` of
               each other they tie
    pairs      a judge reads two answers and says how much better the first shown is, 0 to 1. It is asked in both orders, so that a
               position bias cancels; the win rate of the answer shown first is reported: 0.5 means no such bias
    votes      of people, kept in a file. {"prompt": "...", "models": ["runs/a", "runs/b"], "vote": "a"}: a is the first of the two, whose
               answer was shown first; b, or tie

Judges like long answers. `similar` is the win rate among answers of which none is longer than the other by more than a tenth: where it is
far from the whole, length has won (the question of AlpacaEval's length control, arXiv:2404.04475, without its regression).

Left out: ratings of many models from many pairs (Bradley-Terry, Elo).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ikusei.intervals import Interval, mean_interval

TIE = 1e-9
SIMILAR = 1.1
WON = {"a": 1.0, "b": 0.0, "tie": 0.5}


@dataclass(frozen=True, slots=True)
class PairVerdict:
    """A verdict on two answers to a prompt, one from each model. `won` is 1 where the first model's answer is better; `shown_first` is
    whether that answer was shown first, None where they were not shown together; `lengths` are in order of the models."""

    prompt: str
    won: float
    shown_first: bool | None = None
    lengths: tuple[int, int] | None = None


@dataclass(frozen=True)
class WinRate:
    """The win rate of `one` over `other`. `wins`, `ties` and `losses` are shares over prompts; `to_first` is the win rate of the answer
    that was shown first."""

    one: str
    other: str
    rate: Interval
    wins: float
    ties: float
    losses: float
    num_prompts: int
    num_verdicts: int
    to_first: Interval | None
    similar: Interval | None
    num_similar: int  # prompts with answers of similar length
    failed: int  # answers or pairs without a verdict


def win_rate(one: str, other: str, verdicts: Sequence[PairVerdict], failed: int = 0) -> WinRate:
    """Raises ValueError where there is no verdict, or one says a number outside 0 to 1."""
    if not verdicts or not all(0 <= each.won <= 1 for each in verdicts):
        outside = [each.won for each in verdicts if not 0 <= each.won <= 1][:3]
        raise ValueError(f"{one} and {other}: {len(verdicts)} verdicts, some {outside}; allowed: one or more, from 0 (worse) to 1 (better)")
    rows = _by_prompt(verdicts)
    wins = fmean(fmean(each.won > 0.5 for each in row) for row in rows)
    ties = fmean(fmean(each.won == 0.5 for each in row) for row in rows)
    shown = _by_prompt([each for each in verdicts if each.shown_first is not None])
    alike = _by_prompt([each for each in verdicts if each.lengths and max(each.lengths) <= SIMILAR * min(each.lengths)])
    first = [fmean(each.won if each.shown_first else 1 - each.won for each in row) for row in shown]
    return WinRate(
        one=one,
        other=other,
        rate=mean_interval([fmean(each.won for each in row) for row in rows]),
        wins=wins,
        ties=ties,
        losses=fmean(fmean(each.won < 0.5 for each in row) for row in rows),
        num_prompts=len(rows),
        num_verdicts=len(verdicts),
        to_first=mean_interval(first) if first else None,
        similar=mean_interval([fmean(each.won for each in row) for row in alike]) if alike else None,
        num_similar=len(alike),
        failed=failed,
    )


def of_numbers(
    prompt: str, one: Sequence[tuple[float, int]], other: Sequence[tuple[float, int]], tie: float = TIE
) -> Iterator[PairVerdict]:
    """Every answer of the one against every answer of the other, each as (number, length)."""
    for number, length in one:
        for less, size in other:
            won = 0.5 if abs(number - less) <= tie else float(number > less)
            yield PairVerdict(prompt, won, None, (length, size))


def of_votes(file: Path, one: str, other: str) -> list[PairVerdict]:
    """The votes of a jsonl file that were on these two models, in either order. Raises ValueError with the line, and where none was."""
    models = tuple(name.rstrip("/") for name in (one, other))
    found, seen = [], set()
    for number, line in enumerate(file.read_text("utf-8-sig").split("\n"), start=1):
        if line.strip():
            row = _row(line, f"{file}:{number}")
            shown = tuple(str(name).rstrip("/") for name in row["models"])
            seen |= {shown}
            if sorted(shown) == sorted(models):
                first = shown == models
                won = WON[row["vote"]]
                found.append(PairVerdict(json.dumps(row["prompt"], sort_keys=True), won if first else 1 - won, first))
    if not found:
        there = ", ".join(sorted({" and ".join(sorted(pair)) for pair in seen})) or "none"
        raise ValueError(f"{file}: no vote on {one} and {other}; votes are on: {there}; name the models as the file does")
    return found


def _row(line: str, where: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
        sound = "prompt" in row and len(set(row["models"])) == 2 and len(row["models"]) == 2 and row["vote"] in WON
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{where}: {error!r}; {_form()}") from error
    if not sound:
        raise ValueError(f"{where}: {line[:120]}; {_form()}")
    return row


def _form() -> str:
    return 'a row is {"prompt": ..., "models": ["runs/a", "runs/b"], "vote": "a", "b" or "tie"}, a being the first of the two models'


def _by_prompt(verdicts: Sequence[PairVerdict]) -> list[list[PairVerdict]]:
    rows: dict[str, list[PairVerdict]] = defaultdict(list)
    for verdict in verdicts:
        rows[verdict.prompt].append(verdict)
    return list(rows.values())
