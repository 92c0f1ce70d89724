"""The messages from worker to trainer: validated JSON. Never pickle, which can run code where it is loaded."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, get_args

from ikusei.types import RewardResult, Status

MOST_BYTES = 2**26  # of one message
RewardResults = dict[str, RewardResult]


def written(results: Sequence[RewardResults]) -> bytes:
    """The message with the results of some texts."""
    return json.dumps([{name: [p.value, p.status, p.seconds, p.note] for name, p in each.items()} for each in results]).encode()


def read(message: bytes) -> list[RewardResults]:
    """The inverse of `written`. Raises ValueError for an invalid message."""
    given = json.loads(message)
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise ValueError(f"got {message[:80]!r}; allowed: a list of parts by name")
    return [{str(name): _result(result) for name, result in each.items()} for each in given]


def _result(given: Any) -> RewardResult:
    if not isinstance(given, list) or len(given) != 4:
        raise ValueError(f"got a part {given!r:.80}; allowed: value, status, seconds, note")
    value, status, seconds, note = given
    number = value is None or (type(value) in (int, float) and math.isfinite(value))
    if not number or status not in get_args(Status) or type(seconds) not in (int, float) or not isinstance(note, str):
        raise ValueError(f"got a part {given!r:.80}; allowed: a finite value or none, a status, seconds, a note")
    return RewardResult(None if value is None else float(value), status, float(seconds), note)
