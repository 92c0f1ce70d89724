"""Votes: human ratings of responses, from a file.

    {"prompt": "...", "responses": ["...", "..."], "votes": [3, 0]}         a number for each answer: more is better
    {"prompt": "...", "completion": "...", "label": true}                   1 for true, 0 for false

An answer that nobody judged has no number, and is no 0. `collect: {kind: answers}` writes rows of the first form, without the votes, for
people to judge; the same recipe with another kind then samples the same answers again and finds their votes here. Several judgements of one
answer count by their mean.

Left out: guessing what people would say of an answer that is nearly one that they judged. A reward model does that (learned).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

from ikusei.types import Prompt


@dataclass(frozen=True)
class Votes:
    """`path` is a jsonl file. Raises ValueError where a row is not of one of the two forms."""

    path: str

    files: ClassVar[tuple[str, ...]] = ("path",)
    example: ClassVar[str] = "{path: votes, settings: {path: votes.jsonl}}    # rows of prompt, responses, votes"

    def __post_init__(self) -> None:
        if not Path(self.path).is_file():
            raise ValueError(f"votes: path {self.path}: no such file; a jsonl file with prompt, responses and votes is needed")
        _judged(self.path)

    def __call__(self, prompt: Prompt, response: str, **columns: Any) -> float | None:
        asked = list(prompt.asked) if isinstance(prompt.asked, tuple) else prompt.asked or prompt.text
        return _judged(self.path).get((json.dumps(asked, sort_keys=True), response))


@cache
def _judged(path: str) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for number, line in enumerate(Path(path).read_text(encoding="utf-8-sig").split("\n"), start=1):
        if line.strip():
            try:
                for asked, answer, vote in _of_row(json.loads(line)):
                    found[json.dumps(asked, sort_keys=True), answer].append(vote)
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f'{path}:{number}: {error!r}; a row is {{"prompt": ..., "responses": [...], "votes": [...]}}, a number for each '
                    'response, or {"prompt": ..., "completion": ..., "label": true}'
                ) from error
    return {key: fmean(votes) for key, votes in found.items()}


def _of_row(row: dict[str, Any]) -> Iterator[tuple[Any, str, float]]:
    if "responses" not in row:
        yield row["prompt"], row["completion"], float(row["label"])
        return
    for answer, vote in zip(row["responses"], row["votes"], strict=True):
        if vote is not None:
            yield row["prompt"], answer, float(vote)
