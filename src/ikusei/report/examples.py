"""The same questions before and after, side by side. A fixed rule chooses them, so nothing is cherry-picked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ikusei.text.answer import split_thought

RULE = (
    "The three questions whose share of right answers rose most, the one in the middle, the one that fell most (if any fell) and the one "
    "with the fewest right answers after. Of each the first sample, never the best."
)
LONGEST = 1500  # characters of one text that are shown

Samples = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Shown:
    """One response as a reader sees it, what stands within the think tags apart from the answer."""

    thought: str | None  # None: no think tags
    answer: str
    right: bool
    num_right: int
    num_samples: int


@dataclass(frozen=True)
class Question:
    why: str  # the part of the rule that chose it
    prompt: str
    gold: str | None
    before: Shown
    after: Shown


def side_by_side(before: Samples, after: Samples) -> list[Question]:
    """From the sample rows of two evaluations, by RULE, among the prompts that both have."""
    old, new = by_prompt(before), by_prompt(after)
    ids = [prompt_id for prompt_id in new if prompt_id in old]
    chosen: dict[str, str] = {}
    for why, prompt_id in rule(ids, old, new):
        chosen.setdefault(prompt_id, why)
    return [Question(why, shorten(new[i][0]["prompt"]), new[i][0].get("answer"), shown(old[i]), shown(new[i])) for i, why in chosen.items()]


def rule(ids: Sequence[str], old: Mapping[str, Samples], new: Mapping[str, Samples]) -> Iterator[tuple[str, str]]:
    """(why, prompt id), in the words and the order of RULE; the earlier prompt first where two are equal."""
    if not ids:
        return
    rise = {i: share_right(new[i]) - share_right(old[i]) for i in ids}
    ranked = sorted(ids, key=lambda i: -rise[i])
    for i in ranked[:3]:
        yield "rose most", i
    yield "in the middle", ranked[len(ranked) // 2]
    if rise[ranked[-1]] < 0:
        yield "fell most", ranked[-1]
    yield "fewest right after", min(ids, key=lambda i: share_right(new[i]))


def by_prompt(samples: Samples) -> dict[str, list[Mapping[str, Any]]]:
    by_id: dict[str, list[Mapping[str, Any]]] = {}
    for sample in samples:
        by_id.setdefault(sample["prompt_id"], []).append(sample)
    return by_id


def share_right(samples: Samples) -> float:
    return sum(bool(sample["correct"]) for sample in samples) / len(samples)


def shown(samples: Samples) -> Shown:
    thought, answer = split_thought(samples[0]["response"])
    num_right = sum(bool(sample["correct"]) for sample in samples)
    return Shown(thought and shorten(thought), shorten(answer), bool(samples[0]["correct"]), num_right, len(samples))


def shorten(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} … ({len(text) - LONGEST:,} more characters)"
