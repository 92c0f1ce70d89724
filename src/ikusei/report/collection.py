"""The part of a report that is about collected rows: how many, from what share of the prompts, and three examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ikusei.intervals import Interval, mean_interval
from ikusei.report.examples import shorten
from ikusei.run.read import RunRecord

RULE = "The first row, the one in the middle and the last, so that nothing is picked."


@dataclass(frozen=True)
class ShownAnswer:
    """An answer in a row: its place there, what is said of it, and its text."""

    place: str  # chosen, rejected, best, a rank, or the number of an answer that is still to be judged
    best: bool
    earned: str  # in words
    text: str


@dataclass(frozen=True)
class ShownRow:
    """A row as a reader sees it."""

    number: int  # 1 for the first
    prompt: str
    answers: list[ShownAnswer]


def num_asked(record: RunRecord) -> int:
    """How many prompts were asked so far."""
    settings = record.settings["collect"]
    return min(record.step * settings["prompts_per_step"], settings["num_prompts"])


def share_of_prompts(record: RunRecord) -> Interval:
    """The share of the prompts that gave a row; of prompts that were asked."""
    asked = num_asked(record)
    return mean_interval([1.0] * len(record.collected) + [0.0] * (asked - len(record.collected)))


def sentences(record: RunRecord) -> Iterator[str]:
    """Why the other prompts gave none."""
    kind, left = record.settings["collect"]["kind"], num_asked(record) - len(record.collected)
    if left > 0:
        yield {
            "best": f"{left:,} prompts gave no row: none of their answers earned enough.",
            "pairs": f"{left:,} prompts gave no row: their answers all earned the same, so there is nothing to prefer.",
            "rankings": f"{left:,} prompts gave no row: their answers all earned the same, so there is nothing to rank.",
            "answers": f"{left:,} prompts gave no row: their answers were all the same, so there is nothing to compare.",
        }[kind]
    if kind == "answers":
        yield 'Add to each row of data.jsonl what people say of its answers, as "votes": [3, 0]; the reward votes reads them.'
    yield "The rows are in data.jsonl; nothing was trained."


def examples(record: RunRecord) -> list[ShownRow]:
    """By RULE."""
    last = len(record.collected) - 1
    chosen = dict.fromkeys((0, last // 2, last)) if last >= 0 else {}
    return [ShownRow(index + 1, asked(record.collected[index]["prompt"]), answers(record.collected[index])) for index in chosen]


def asked(prompt: str | list[Mapping[str, Any]]) -> str:
    """A prompt, or a conversation that is asked to go on, as text."""
    return shorten(prompt if isinstance(prompt, str) else "\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt))


def answers(row: Mapping[str, Any]) -> list[ShownAnswer]:
    """Best first; equal ones as they were written."""
    if "completion" in row:
        return [ShownAnswer("best", True, f"reward {row['reward']:g}", shorten(row["completion"]))]
    if "chosen" in row:
        both = zip(("chosen", "rejected"), row["rewards"], strict=True)
        return [ShownAnswer(place, place == "chosen", f"reward {reward:g}", shorten(row[place])) for place, reward in both]
    if "ranking" not in row:
        return [
            ShownAnswer(f"answer {number}", False, "to be judged", shorten(text)) for number, text in enumerate(row["responses"], start=1)
        ]
    ranked = sorted(zip(row["ranking"], row["rewards"], row["responses"], strict=True), key=lambda each: each[0])
    return [ShownAnswer(f"rank {rank}", rank == 1, f"reward {reward:g}", shorten(text)) for rank, reward, text in ranked]
