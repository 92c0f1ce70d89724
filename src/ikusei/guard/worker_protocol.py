"""What a worker says to the trainer: JSON, checked, and never a pickle, which could run what it likes where it is read."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, get_args

from ikusei.types import Part, Status

MOST_BYTES = 2**26  # of one message
Parts = dict[str, Part]


def written(parts: Sequence[Parts]) -> bytes:
    """The parts of some texts."""
    return json.dumps([{name: [p.value, p.status, p.seconds, p.note] for name, p in each.items()} for each in parts]).encode()


def read(message: bytes) -> list[Parts]:
    """What `written` wrote. ValueError where it is not that."""
    given = json.loads(message)
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise ValueError(f"got {message[:80]!r}; allowed: a list of parts by name")
    return [{str(name): _part(part) for name, part in each.items()} for each in given]


def _part(given: Any) -> Part:
    if not isinstance(given, list) or len(given) != 4:
        raise ValueError(f"got a part {given!r:.80}; allowed: value, status, seconds, note")
    value, status, seconds, note = given
    number = value is None or (type(value) in (int, float) and math.isfinite(value))
    if not number or status not in get_args(Status) or type(seconds) not in (int, float) or not isinstance(note, str):
        raise ValueError(f"got a part {given!r:.80}; allowed: a finite value or none, a status, seconds, a note")
    return Part(None if value is None else float(value), status, float(seconds), note)
