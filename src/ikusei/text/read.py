"""Read texts from a file: one per line, or .jsonl."""

from __future__ import annotations

import json
from pathlib import Path


def read_texts(file: Path) -> list[str]:
    """The texts of a file: its lines; of a .jsonl, each line's string or its field `text`. Raises ValueError with the line number."""
    if not file.is_file():
        raise ValueError(f"{file}: no such file; allowed: a text file, one text per line, or .jsonl with a field `text` in each line")
    lines = [(number, line) for number, line in enumerate(file.read_text("utf-8-sig").split("\n"), 1) if line.strip()]
    return [_of_json(file, number, line) if file.suffix == ".jsonl" else line for number, line in lines]


def _of_json(file: Path, number: int, line: str) -> str:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}:{number}: not JSON: {error.msg}; allowed in a line: a string, or an object with a field `text`") from None
    text = row.get("text") if isinstance(row, dict) else row
    if not isinstance(text, str):
        raise ValueError(f"{file}:{number}: no text; allowed: a string, or an object with a field `text`; rename the field that holds it")
    return text
