"""The section of a report on collected rows: how many, from what share of the prompts, and three examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ikusei.intervals import Interval, mean_interval
from ikusei.report.examples import shorten
from ikusei.run.read import RunRecord

RULE = "The first, the middle and the last row: not cherry-picked."


@dataclass(frozen=True)
class ShownAnswer:
    """An answer of a row, as a report shows it."""

    place: str  # "chosen", "rejected", "best", its rank, or its number if it is not rated yet
    best: bool
    earned: str  # its reward as text, or "to be judged"
    text: str


@dataclass(frozen=True)
class ShownRow:
    """A row as a report shows it."""

    number: int  # 1 for the first
    prompt: str
    answers: list[ShownAnswer]


def num_asked(record: RunRecord) -> int:
    """The number of prompts sampled so far."""
    settings = record.settings["collect"]
    return min(record.step * settings["prompts_per_step"], settings["num_prompts"])


def share_of_prompts(record: RunRecord) -> Interval:
    """The share of the prompts sampled so far that gave a row."""
    asked = num_asked(record)
    return mean_interval([1.0] * len(record.collected) + [0.0] * (asked - len(record.collected)))


def sentences(record: RunRecord) -> Iterator[str]:
    """Sentences on why the other prompts gave no row, and on what to do with the rows."""
    kind, left = record.settings["collect"]["kind"], num_asked(record) - len(record.collected)
    if left > 0:
        yield {
            "best": f"{left:,} prompts gave no row: none of their answers reached the required reward.",
            "pairs": f"{left:,} prompts gave no row: all their answers have the same reward, so none is preferred.",
            "rankings": f"{left:,} prompts gave no row: all their answers have the same reward, so there is nothing to rank.",
            "answers": f"{left:,} prompts gave no row: all their answers are the same text, so there is nothing to compare.",
        }[kind]
    if kind == "answers":
        yield 'Have people rate the answers, and add the ratings to the rows of data.jsonl as "votes": [3, 0]; the reward votes reads them.'
    yield "The rows are in data.jsonl; nothing was trained."


def examples(record: RunRecord) -> list[ShownRow]:
    """The rows that RULE names."""
    last = len(record.collected) - 1
    chosen = dict.fromkeys((0, last // 2, last)) if last >= 0 else {}
    return [ShownRow(index + 1, asked(record.collected[index]["prompt"]), answers(record.collected[index])) for index in chosen]


def asked(prompt: str | list[Mapping[str, Any]]) -> str:
    """A prompt or a list of messages as text."""
    return shorten(prompt if isinstance(prompt, str) else "\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt))


def answers(row: Mapping[str, Any]) -> list[ShownAnswer]:
    """The answers of a row, best first; ties and unrated answers in the order of sampling."""
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
