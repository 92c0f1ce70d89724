"""Files that are written whole or not at all, and logs that a kill cannot spoil.

A file or folder is written under a temporary name beside its place, fsynced and renamed: a reader finds the old one, the new one, or
none. A log gets one line at a time. A kill can tear only the last line; what has no newline does not count.

Left out: locks. Two processes that resume one run at the same time are not kept apart.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ikusei.run.formats import FORMAT, must_be_readable

WRITE_ERRORS = (OSError, SafetensorError, RuntimeError)  # what Python, safetensors and torch raise on a full disk


def plain(value: Any) -> Any:
    """The same as data that JSON has: records as mappings, paths as text, and null for a number that is not finite."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def sync(path: Path) -> None:
    """Asks the disk to keep a file, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns a failure to write into an OSError that says which file it was, and what room there is now."""
    try:
        yield
    except WRITE_ERRORS as error:
        free_mb = shutil.disk_usage(path.parent).free // 2**20
        raise OSError(f"{path} could not be written ({free_mb} MB free there): {error}") from error


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a temporary path to write; renamed to `path` at the end, removed on an error."""
    unfinished = temporary(path)
    with explained(path):
        try:
            yield unfinished
            sync(unfinished)
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        sync(path.parent)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Gives a temporary folder to fill; renamed to `path` at the end (in place of one that stands there), removed on an error."""
    unfinished = temporary(path)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    with explained(path):
        try:
            yield unfinished
            for inside in sorted(unfinished.rglob("*"), reverse=True):
                sync(inside)
            sync(unfinished)
            discard(path)
            unfinished.rename(path)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        sync(path.parent)


def discard(folder: Path) -> None:
    """Removes a folder, first its name: a kill in between leaves something that nobody takes for whole."""
    if folder.exists():
        going = temporary(folder.with_name(f"{folder.name}.old"))
        shutil.rmtree(going, ignore_errors=True)
        folder.rename(going)
        shutil.rmtree(going)


def clear_temporary(folder: Path) -> None:
    """Removes what a killed process left half written, here and one level down."""
    for left in [*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp")]:
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()


def must_have_a_place(file: Path | None) -> None:
    """Before what takes long: raises ValueError where the folder that a file is to be written into is not there."""
    if file is not None and not file.parent.is_dir():
        raise ValueError(f"{file}: there is no folder {file.parent}; make it first, or name another place")


def write_text(path: Path, text: str) -> None:
    with whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """A mapping as JSON, with the number of the format that it is in."""
    write_json(path, {"format": FORMAT, **record})


def read_record(path: Path) -> dict[str, Any]:
    """What `write_record` wrote, without the number. Raises ValueError for one that a newer version has written."""
    record = read_json(path)
    must_be_readable(record, path)
    return {key: value for key, value in record.items() if key != "format"}


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Adds one line of JSON and hands it to the operating system, so that a kill of this process cannot take it back."""
    with explained(path), path.open("a", encoding="utf-8") as log:
        log.write(json.dumps(plain(row), ensure_ascii=False, allow_nan=False) + "\n")


def raw_lines(path: Path) -> list[bytes]:
    """The whole lines of a log, without their newlines; none where there is no log yet. A torn last line is left out."""
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in raw_lines(path)]


def cut_torn_line(path: Path) -> None:
    """Takes a torn last line out of the log itself, so that the next one does not continue it."""
    if path.exists():
        os.truncate(path, sum(len(line) + 1 for line in raw_lines(path)))
