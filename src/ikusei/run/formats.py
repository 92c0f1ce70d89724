"""Files of earlier versions stay readable: the number of the file format, and the recipe keys that have new names.

    format 1   0.1: run folders without the field
    format 2   0.2: the field `format`; `train.tokens_per_microbatch` in resolved recipes

run.json holds the number for its whole run folder. Files that may be copied elsewhere hold it too: summary.json, results.json, state.json,
trainer.pt, found.json of a claim, and the metadata of Parquet tables. A run that is resumed takes the number of the version that resumes
it. Raise FORMAT when an older version could not read what is written.

Left out: data.jsonl and other row files have no number, since other programs read them a row a line. Model folders are in transformers'
format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMAT = 2

Key = tuple[str, ...]

# A key of a recipe or of a stage, section or value, by what it is called now. They are applied in this order, each to what the ones before
# it have left: after ("lens",): ("mass",) comes ("mass", "text"): ("mass", "raw_text").
RENAMED: dict[Key, Key] = {
    ("train", "tokens_per_part"): ("train", "tokens_per_microbatch"),
}


@dataclass(frozen=True)
class Move:
    """An old key, and its present name; `clash` where that was given too."""

    old: Key
    new: Key
    clash: bool


class UnreadableFormat(ValueError):
    """What is there was written by a newer version, or its format is none. `short` says so in two or three words."""

    def __init__(self, place: Path, short: str, fix: str) -> None:
        super().__init__(f"{place}: {short}; this ikusei reads format 1 to {FORMAT}; {fix}")
        self.short = short


def must_be_readable(record: Mapping[str, Any], place: Path) -> None:
    """Raises UnreadableFormat where the `format` of a record, 1 where it has none, is not one that this version reads."""
    given = record.get("format", 1)
    if type(given) is not int or given < 1:
        raise UnreadableFormat(place, f"format {given!r}, which no version has written", "the file is damaged: take it from a copy")
    if given > FORMAT:
        raise UnreadableFormat(place, f"format {given}, of a newer ikusei", "upgrade it: pip install --upgrade ikusei")


def current(key: Key) -> Key:
    """The present name of a recipe's key, or of one inside it or inside a stage."""
    start = key[:2] if key[:1] == ("stages",) else ()
    for old, new in RENAMED.items():
        key = swapped(key, (*start, *old), (*start, *new))
    return key


def with_current_keys(data: Any) -> tuple[Any, list[Move]]:
    """A recipe as plain data by its present keys, and what was moved, in order. Of a key given by both names the present one stays."""
    moves: list[Move] = []
    for name, present in RENAMED.items():
        for start in _starts(data):
            old, new = (*start, *name), (*start, *present)
            if _holds(data, old):
                moves.append(Move(old, new, _holds(data, new)))
                value, data = _at(data, old), _without(data, old)
                data = data if moves[-1].clash else _with(data, new, value)
    return data, moves


def swapped(key: Key, old: Key, new: Key) -> Key:
    """A key with its beginning `old`, if it has that, replaced."""
    return (*new, *key[len(old) :]) if key[: len(old)] == old else key


def _starts(data: Any) -> list[Key]:
    """Where the sections of a recipe stand: at the top, and in each of its stages."""
    stages = data.get("stages") if isinstance(data, dict) else None
    return [(), *(("stages", str(n)) for n in range(len(stages) if isinstance(stages, list) else 0))]


def _holds(data: Any, key: Key) -> bool:
    try:
        _at(data, key)
    except (KeyError, IndexError, TypeError, ValueError):
        return False
    return True


def _at(data: Any, key: Key) -> Any:
    for name in key:
        data = data[int(name) if isinstance(data, list) else name]
    return data


def _without(data: Any, key: Key) -> Any:
    """Without what stands at a key, and the mappings on the way that this leaves empty."""
    name, rest = key[0], key[1:]
    if isinstance(data, list):
        return [_without(each, rest) if str(n) == name else each for n, each in enumerate(data)]
    inside = _without(data[name], rest) if rest else {}
    return {other: each if other != name else inside for other, each in data.items() if other != name or inside}


def _with(data: Any, key: Key, value: Any) -> Any:
    """With a value at a key; what stands on the way and is no mapping stays, for it is refused later."""
    if not key:
        return value
    name, rest = key[0], key[1:]
    if isinstance(data, list):
        return [_with(each, rest, value) if str(n) == name else each for n, each in enumerate(data)]
    return {**(data or {}), name: _with((data or {}).get(name), rest, value)} if isinstance(data, dict | None) else data
