"""Texts from a file: one a line, or from .jsonl."""

from __future__ import annotations

import json
from pathlib import Path


def read_texts(file: Path) -> list[str]:
    """The texts of a file: a line each, or from .jsonl the strings, or the `text` of each row. Raises ValueError with the line."""
    if not file.is_file():
        raise ValueError(f"{file}: no such file; allowed: a text file with one text a line, or .jsonl with a `text` in each row")
    lines = [(number, line) for number, line in enumerate(file.read_text("utf-8-sig").split("\n"), 1) if line.strip()]
    return [_of_json(file, number, line) if file.suffix == ".jsonl" else line for number, line in lines]


def _of_json(file: Path, number: int, line: str) -> str:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}:{number}: not JSON: {error.msg}; allowed: a string, or an object with a `text`, in each line") from None
    text = row.get("text") if isinstance(row, dict) else row
    if not isinstance(text, str):
        raise ValueError(f"{file}:{number}: no text; allowed: a string, or an object with a `text`; rename the column that holds it")
    return text
