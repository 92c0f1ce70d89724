"""A user's own data: a jsonl, json, csv or parquet file, a row an example.

    prompt (a string or a list of messages) and any columns      for reinforcement learning: rewards receive the columns by name
    prompt, completion (or response)                             supervised
    messages                                                     supervised: the last one is learned where the assistant says it
    text                                                         pretraining

`columns` renames: {prompt: question} reads the file's column `question` as `prompt`. Every row is read before anything starts, and the
first ten problems are told at once, each with file, line and fix; nothing is dropped. Rows with the same prompt fall on the same side of
the split.

Left out: preference columns (chosen, rejected, ranking), which come with the methods that need them; folders and hub ids.
"""

from __future__ import annotations

import csv
import difflib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from ikusei.types import Example, Message, Split, content_id

MAX_PROBLEMS = 10
ROLES = ("system", "user", "assistant", "tool")
LIKELY = {  # what others call it, for the suggested fix
    "prompt": ("question", "instruction", "input", "query", "problem"),
    "text": ("content", "document", "body"),
    "messages": ("conversation", "conversations", "chat", "dialog"),
}

Rows = Iterator[tuple[str, Any]]
Stamp = tuple[int, int]
Columns = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Files:
    """The rows of `path`. `test_share` of them are held out, by the hash of the prompt, at least one where there are two different ones;
    or `test_path` holds the test rows."""

    path: Path
    columns: Mapping[str, str] = field(default_factory=dict)
    test_share: float = 0.1
    test_path: Path | None = None

    rewards: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.test_share < 1:
            raise ValueError(f"files: test_share={self.test_share}; allowed: from 0 to below 1; 0.1 holds out a tenth of the rows")

    def num_rows(self, split: Split) -> int:
        return len(self._rows(split))

    def row(self, split: Split, index: int) -> Example:
        rows = self._rows(split)
        if not 0 <= index < len(rows):
            raise ValueError(f"{self.path}: row {index} of {split}; it has {len(rows)}; give more rows, or another test_share")
        return rows[index]

    def _rows(self, split: Split) -> tuple[Example, ...]:
        paths = (self.path,) if self.test_path is None else (self.path, self.test_path)
        return _splits(paths, tuple(map(_stamp, paths)), tuple(sorted(self.columns.items())), self.test_share)[split]


@cache
def _splits(paths: tuple[Path, ...], stamps: tuple[Stamp, ...], columns: Columns, test_share: float) -> dict[Split, tuple[Example, ...]]:
    """The rows of both splits. `stamps` is part of the key, so that a changed file is read again."""
    loaded = [_load(path, dict(columns)) for path in paths]
    if len(loaded) == 1:
        return _divide(loaded[0], test_share)
    train, test = loaded
    shared = {_asked(example) for example in train} & {_asked(example) for example in test}
    if shared:
        number = next(number for number, example in enumerate(test, start=1) if _asked(example) in shared)
        raise ValueError(
            f"{paths[1]}: {len(shared)} of its prompts are in {paths[0]} too, the first in example {number}; take them out of one"
        )
    return {"train": train, "test": test}


def _divide(examples: tuple[Example, ...], test_share: float) -> dict[Split, tuple[Example, ...]]:
    """By the hash of what is asked: at least one for each split where there are two, and never the same on both sides."""
    asked = sorted({_asked(example) for example in examples})
    num_test = sum(int(digest, 16) < test_share * 16**16 for digest in asked)
    num_test = min(max(num_test, 1), len(asked) - 1) if test_share else 0
    test = set(asked[:num_test])
    return {
        "train": tuple(example for example in examples if _asked(example) not in test),
        "test": tuple(example for example in examples if _asked(example) in test),
    }


def _asked(example: Example) -> str:
    return content_id(example.responses if example.prompt is None else example.prompt)


def _load(path: Path, columns: dict[str, str]) -> tuple[Example, ...]:
    """Every row of the file as an example, or its first ten problems."""
    examples, problems = [], []
    for where, row in READERS[path.suffix.lower()](path):
        try:
            examples.append(_example(_rename(_sound(row), columns)))
        except ValueError as problem:
            problems.append(f"{where}: {problem}")
        if len(problems) == MAX_PROBLEMS:
            break
    if problems:
        raise ValueError("\n".join(problems))
    if not examples:
        raise ValueError(f"{path}: no rows; at least one is needed, with a column 'prompt', 'messages' or 'text'; is it the right file?")
    return tuple(examples)


def _stamp(path: Path) -> Stamp:
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [other.name for other in path.parent.glob("*")], n=1)
        raise ValueError(f"{path}: no such file; a file of {', '.join(READERS)} is needed" + (f"; did you mean {near[0]}?" if near else ""))
    if path.suffix.lower() not in READERS:
        raise ValueError(f"{path}: ends with {path.suffix!r}; allowed: {', '.join(READERS)}; convert it, or name it by what it holds")
    return path.stat().st_mtime_ns, path.stat().st_size


# Readers give the place of each row, and the row or, where it cannot be read, a Fault, so that the rows after it are still looked at.


@dataclass(frozen=True)
class Fault:
    text: str


def _sound(row: Any) -> dict[str, Any]:
    if isinstance(row, Fault):
        raise ValueError(row.text)
    if not isinstance(row, dict):
        raise ValueError(f'the row is {_kind(row)}; an object is needed: {{"prompt": ...}}')
    return row


def _read_jsonl(path: Path) -> Rows:
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if line.strip():
            try:
                yield f"{path}:{number}", json.loads(line)
            except json.JSONDecodeError as fault:
                yield f"{path}:{number}:{fault.colno}", Fault(f"broken JSON: {fault.msg}; each line is one whole row")


def _read_json(path: Path) -> Rows:
    try:
        rows = json.loads(_text(path))
    except json.JSONDecodeError as fault:
        yield f"{path}:{fault.lineno}:{fault.colno}", Fault(f"broken JSON: {fault.msg}; for one row a line, name it .jsonl")
        return
    if not isinstance(rows, list):
        raise ValueError(f"{path}: holds {_kind(rows)}; a list of rows is needed: [{{...}}, {{...}}]")
    yield from ((f"{path}: row {number}", row) for number, row in enumerate(rows, start=1))


def _read_csv(path: Path) -> Rows:
    lines = csv.reader(_text(path).splitlines(keepends=True), strict=True)
    names: list[str] = []
    line = 1  # on which the row begins: a quoted cell may hold line breaks
    try:
        for cells in lines:
            if not names:
                names = cells
            elif len(cells) == len(names):
                yield f"{path}:{line}", dict(zip(names, cells, strict=True))
            elif cells:
                yield f"{path}:{line}", Fault(f"{len(cells)} cells, the first line names {len(names)}; quote cells that hold commas")
            line = lines.line_num + 1
    except csv.Error as fault:
        yield f"{path}:{line}", Fault(f"broken csv: {fault}; quote cells that hold quotes, commas or line breaks")


def _read_parquet(path: Path) -> Rows:
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowInvalid as fault:
        raise ValueError(f"{path}: not a readable parquet file: {fault}; write it again, or name it by what it holds") from fault
    yield from ((f"{path}: row {number}", row) for number, row in enumerate(rows, start=1))


READERS: dict[str, Callable[[Path], Rows]] = {".jsonl": _read_jsonl, ".json": _read_json, ".csv": _read_csv, ".parquet": _read_parquet}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as fault:
        raise ValueError(f"{path}: byte {fault.start} is not UTF-8; save the file as UTF-8") from fault


def _rename(row: dict[str, Any], columns: dict[str, str]) -> dict[str, Any]:
    for ours, theirs in columns.items():
        if theirs not in row:
            raise ValueError(f"column {theirs!r} missing (columns: {{{ours}: {theirs}}}). Columns seen: {', '.join(row)}")
        if ours in row and ours not in columns.values():
            raise ValueError(f"columns: {{{ours}: {theirs}}}, but there is a column {ours!r} too; rename that one as well")
    ours_of = {theirs: ours for ours, theirs in columns.items()}
    return {ours_of.get(name, name): value for name, value in row.items()}


def _example(row: dict[str, Any]) -> Example:
    if "messages" in row:
        messages = _messages(row.pop("messages"), "messages")
        if messages[-1]["role"] == "assistant":
            if len(messages) == 1:
                raise ValueError("messages: the assistant speaks alone; a message of the user is needed before it")
            return Example(messages[:-1], (messages[-1]["content"],), row)
        return Example(messages, (), row)
    if "prompt" in row:
        prompt = row.pop("prompt")
        prompt = _messages(prompt, "prompt") if isinstance(prompt, list) else _string(prompt, "prompt")
        learned = [name for name in ("completion", "response") if name in row]
        if len(learned) == 2:
            raise ValueError("both 'completion' and 'response'; keep the one that is to be learned")
        return Example(prompt, tuple(_string(row.pop(name), name) for name in learned), row)
    if "text" in row:
        return Example(None, (_string(row.pop("text"), "text"),), row)
    raise ValueError(
        f"column 'prompt' missing. Columns seen: {', '.join(row) or 'none'}. "
        f"A row needs prompt, messages or text. Try: columns: {_guess(row)} if every row is so, else mend this row"
    )


def _guess(row: Mapping[str, Any]) -> str:
    for ours, names in LIKELY.items():
        near = next((name for name in row if name.lower() in names or difflib.get_close_matches(name.lower(), [ours])), None)
        if near:
            return f"{{{ours}: {near}}}"
    return f"{{prompt: {next(iter(row), 'your column')}}}"


def _messages(value: Any, column: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(f'{column} is {_kind(value)}; a list of messages is needed: [{{"role": "user", "content": "..."}}]')
    for number, message in enumerate(value, start=1):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str) or not isinstance(message.get("content"), str):
            raise ValueError(f'{column}: message {number} is not of the form {{"role": "user", "content": "..."}}')
        if message["role"] not in ROLES:
            raise ValueError(f"{column}: message {number} has role {message['role']!r}; allowed: {', '.join(ROLES)}")
    return tuple(Message(role=message["role"], content=message["content"]) for message in value)


def _string(value: Any, column: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{column} is {_kind(value)}; a text that is not empty is needed")
    return value


def _kind(value: Any) -> str:
    names = {
        str: "a text",
        list: "a list",
        dict: "an object",
        bool: "true or false",
        int: "a number",
        float: "a number",
        type(None): "null",
    }
    return "an empty text" if isinstance(value, str) and not value.strip() else names.get(type(value), type(value).__name__)
