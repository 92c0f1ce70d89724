"""The user's own data: a jsonl, json, csv or parquet file with one example per row, or a txt or md file, which is one text.

`columns.py` says what each column means; `columns` renames them: {prompt: question} reads the file's column `question` as `prompt`. All
rows are read before training starts, and the first ten different problems are reported together, each with file, line and fix. Up to
`max_bad_rows` bad rows are skipped; they are written to `<file>.rejects.jsonl` beside the file. Rows with the same prompt are all in
train or all in test.

Left out: folders, and data set ids of the Hugging Face Hub.
"""

from __future__ import annotations

import csv
import difflib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from ikusei.tasks.cell_values import kind_of
from ikusei.tasks.columns import RAW_TEXT, Reading, Shape, misfit, read_row, rename
from ikusei.types import Example, Split, content_id

MAX_PROBLEMS = 10

Row = tuple[str, Any]  # its place in the file, and its content
Stamp = tuple[int, int]  # modification time in ns, size in bytes
Columns = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Files:
    """The rows of `path`. The test split is a share `test_share` of the prompts, by hash, at least one if there are two; or the rows of
    `test_path`. Raw texts longer than `pieces` characters are split at line breaks, each piece a row of its own."""

    path: Path
    columns: Mapping[str, str] = field(default_factory=dict)
    test_share: float = 0.1
    test_path: Path | None = None
    pieces: int = 0  # 0: texts are not split
    max_bad_rows: int = 0

    rewards: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.test_share < 1:
            raise ValueError(f"files: test_share={self.test_share}; allowed: from 0 to below 1; 0.1 holds out a tenth of the rows")
        if self.pieces < 0 or self.max_bad_rows < 0:
            raise ValueError(f"files: pieces={self.pieces}, max_bad_rows={self.max_bad_rows}; allowed: 0 or more; 0 is off")

    @property
    def shape(self) -> str:
        """The row format that was detected, and how many rows were skipped, for the user to confirm."""
        return self._read().description

    def num_rows(self, split: Split) -> int:
        return len(self._read().rows[split])

    def row(self, split: Split, index: int) -> Example:
        rows = self._read().rows[split]
        if not 0 <= index < len(rows):
            raise ValueError(f"{self.path}: row {index} of {split}; it has {len(rows)}; give more rows, or another test_share")
        return rows[index]

    def _read(self) -> Splits:
        paths = (self.path,) if self.test_path is None else (self.path, self.test_path)
        columns = tuple(sorted(self.columns.items()))
        return _splits(paths, tuple(map(_stamp, paths)), columns, self.test_share, self.pieces, self.max_bad_rows)


@dataclass(frozen=True)
class Loaded:
    """The examples of one file, and its row format in words."""

    examples: tuple[Example, ...]
    description: str


@dataclass(frozen=True)
class Splits:
    """The examples of both splits, and their row format in words."""

    rows: Mapping[Split, tuple[Example, ...]]
    description: str


@dataclass(frozen=True)
class Bad:
    """A row that cannot be used: its place in the file, what is wrong, and its content."""

    where: str
    problem: str
    row: Any


@cache
def _splits(
    paths: tuple[Path, ...], stamps: tuple[Stamp, ...], columns: Columns, test_share: float, pieces: int, max_bad_rows: int
) -> Splits:
    """Both splits. `stamps` is in the cache key, so that a changed file is read again."""
    loaded = [_load(path, dict(columns), pieces, max_bad_rows) for path in paths]
    if len(loaded) == 1:
        return Splits(_divide(loaded[0].examples, test_share), loaded[0].description)
    train, test = (each.examples for each in loaded)
    shared = {_prompt_id(example) for example in train} & {_prompt_id(example) for example in test}
    if shared:
        number = next(number for number, example in enumerate(test, start=1) if _prompt_id(example) in shared)
        raise ValueError(
            f"{paths[1]}: {len(shared)} of its prompts are in {paths[0]} too, the first in example {number}; remove them from one file"
        )
    return Splits({"train": train, "test": test}, "; test rows: ".join(dict.fromkeys(each.description for each in loaded)))


def _divide(examples: tuple[Example, ...], test_share: float) -> dict[Split, tuple[Example, ...]]:
    """Splits by the hash of the prompt: no prompt is in both splits, and of two prompts or more at least one is in each."""
    prompts = sorted({_prompt_id(example) for example in examples})
    num_test = sum(int(digest, 16) < test_share * 16**16 for digest in prompts)
    num_test = min(max(num_test, 1), len(prompts) - 1) if test_share else 0
    test = set(prompts[:num_test])
    return {
        "train": tuple(example for example in examples if _prompt_id(example) not in test),
        "test": tuple(example for example in examples if _prompt_id(example) in test),
    }


def _prompt_id(example: Example) -> str:
    return content_id(example.responses if example.prompt is None else example.prompt)


def _load(path: Path, columns: dict[str, str], pieces: int, max_bad_rows: int) -> Loaded:
    """Reads every row of the file. Raises ValueError with its first ten problems where more than `max_bad_rows` rows are bad."""
    rows = list(READERS[path.suffix.lower()](path))
    readings = [_reading(where, row, columns) for where, row in rows]
    shapes = Counter(each.shape for each in readings if isinstance(each, Reading))
    usual = shapes.most_common(1)[0][0] if shapes else None
    good, bad = _sorted_out(rows, readings, usual)
    if len(bad) > max_bad_rows:
        raise ValueError("\n".join(_problems(path, bad, max_bad_rows)))
    if usual is None:
        raise ValueError(f"{path}: no rows; at least one is needed, with a column 'prompt', 'messages' or 'text'; is it the right file?")
    if pieces and usual is not RAW_TEXT:
        raise ValueError(f"{path}: pieces={pieces}, and its rows are {usual.name}; only raw text (text) can be cut; leave pieces out")
    description = f"{usual.name}; {_rejected(path, bad)}" if bad else usual.name
    return Loaded(tuple(piece for example in good for piece in _cut(example, pieces)), description)


def _sorted_out(rows: Sequence[Row], readings: Sequence[Reading | Bad], usual: Shape | None) -> tuple[list[Example], list[Bad]]:
    """The examples in the most common format, and the bad rows: unreadable, or in another format."""
    good, bad = list[Example](), list[Bad]()
    for (where, row), reading in zip(rows, readings, strict=True):
        if isinstance(reading, Bad):
            bad.append(reading)
        elif usual and reading.shape != usual:
            bad.append(Bad(where, misfit(reading, usual), row))
        else:
            good.append(reading.example)
    return good, bad


def _problems(path: Path, bad: Sequence[Bad], max_bad_rows: int) -> list[str]:
    """One line for each of the first ten different problems, with the first row that has it."""
    times = Counter(each.problem for each in bad)  # in the order of their first rows
    first = {problem: next(each.where for each in bad if each.problem == problem) for problem in list(times)[:MAX_PROBLEMS]}
    lines = [f"{where}: {problem}{_also(times[problem])}" for problem, where in first.items()]
    return lines + ([f"{path}: {len(bad)} bad rows in all; max_bad_rows allows {max_bad_rows}"] if max_bad_rows else [])


def _reading(where: str, row: Any, columns: Mapping[str, str]) -> Reading | Bad:
    try:
        return read_row(rename(_sound(row), columns))
    except ValueError as problem:
        return Bad(where, str(problem), row)


def _rejected(path: Path, bad: Sequence[Bad]) -> str:
    """Writes the skipped rows beside the file; returns their number and where they are, as text."""
    rejects = path.with_name(f"{path.name}.rejects.jsonl")
    rows = [{"where": each.where, "problem": each.problem, "row": None if isinstance(each.row, Fault) else each.row} for each in bad]
    try:
        rejects.write_text("".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows), encoding="utf-8")
    except OSError as fault:
        raise ValueError(f"{rejects}: cannot be written ({fault.strerror}); make the folder writable, or fix the rows") from fault
    return f"{len(bad)} bad row{'s' * (len(bad) > 1)} left out (see {rejects.name})"


def _also(times: int) -> str:
    return f" (the same in {times - 1} more row{'s' * (times > 2)})" if times > 1 else ""


def _cut(example: Example, pieces: int) -> Iterator[Example]:
    """Splits raw text into pieces of at most `pieces` characters, after the last line break that fits, else inside a line."""
    text = example.responses[0] if pieces else ""
    if not isinstance(text, str) or len(text) <= pieces:
        yield example
        return
    start = 0
    while start < len(text):
        stop = start + pieces
        if stop < len(text):
            stop = text.rfind("\n", start, stop) + 1 or stop
        if text[start:stop].strip():
            yield replace(example, responses=(text[start:stop],))
        start = stop


def _stamp(path: Path) -> Stamp:
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [other.name for other in path.parent.glob("*")], n=1)
        raise ValueError(f"{path}: no such file; a file of {', '.join(READERS)} is needed" + (f"; did you mean {near[0]}?" if near else ""))
    if path.suffix.lower() not in READERS:
        raise ValueError(f"{path}: ends with {path.suffix!r}; allowed: {', '.join(READERS)}; convert it, or rename it to match its content")
    return path.stat().st_mtime_ns, path.stat().st_size


# A reader yields each row with its place in the file; for one that cannot be parsed a `Fault`, so that the rows after it are still checked.


@dataclass(frozen=True)
class Fault:
    text: str


def _sound(row: Any) -> dict[str, Any]:
    if isinstance(row, Fault):
        raise ValueError(row.text)
    if not isinstance(row, dict):
        raise ValueError(f'the row is {kind_of(row)}; an object is needed: {{"prompt": ...}}')
    return row


def _read_jsonl(path: Path) -> Iterator[Row]:
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if line.strip():
            try:
                yield f"{path}:{number}", json.loads(line)
            except json.JSONDecodeError as fault:
                yield f"{path}:{number}:{fault.colno}", Fault(f"broken JSON: {fault.msg}; each line is one whole row")


def _read_json(path: Path) -> Iterator[Row]:
    try:
        rows = json.loads(_text(path))
    except json.JSONDecodeError as fault:
        yield f"{path}:{fault.lineno}:{fault.colno}", Fault(f"broken JSON: {fault.msg}; if it has one row per line, name it .jsonl")
        return
    if not isinstance(rows, list):
        raise ValueError(f"{path}: holds {kind_of(rows)}; a list of rows is needed: [{{...}}, {{...}}]")
    yield from ((f"{path}: row {number}", row) for number, row in enumerate(rows, start=1))


def _read_csv(path: Path) -> Iterator[Row]:
    lines = csv.reader(_text(path).splitlines(keepends=True), strict=True)
    names: list[str] = []
    line = 1  # where the row begins: a quoted cell may contain line breaks
    try:
        for cells in lines:
            if not names:
                names = cells
            elif len(cells) == len(names):
                yield f"{path}:{line}", dict(zip(names, cells, strict=True))
            elif cells:
                yield f"{path}:{line}", Fault(f"{len(cells)} cells, the first line names {len(names)}; quote cells that contain commas")
            line = lines.line_num + 1
    except csv.Error as fault:
        yield f"{path}:{line}", Fault(f"broken csv: {fault}; quote cells that contain quotes, commas or line breaks")


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowInvalid as fault:
        raise ValueError(f"{path}: not a readable parquet file: {fault}; write it again, or rename it to match its content") from fault
    yield from ((f"{path}: row {number}", row) for number, row in enumerate(rows, start=1))


def _read_txt(path: Path) -> Iterator[Row]:
    yield str(path), {"text": _text(path)}


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".txt": _read_txt,
    ".md": _read_txt,
}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as fault:
        raise ValueError(f"{path}: byte {fault.start} is not UTF-8; save the file as UTF-8") from fault
