"""A run folder. The files are the truth; the display, the report and `ikusei runs` are views of them.

    runs/20261122-101500-quickstart/
      run.json  recipe.yaml (as resolved)  recipe.source.yaml  metrics.jsonl  events.jsonl  logs/
      responses/step-000050.parquet      every sampled response, with the value of each reward
      eval/before@0/{results.json, samples.parquet}
      checkpoint-50/                     the model in Hugging Face layout, what training needs, state.json
      final/  summary.json  report.html

A checkpoint is whole when state.json lists its files and each has its size; it is renamed into place only after fsync. A step counts once
its line is in metrics.jsonl, which is written last. Events of the kind "warning" or "error" that have a `text` are shown to people, also
in the report.

Left out: trackers (they read metrics.jsonl), and locks against two processes in one run.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from ikusei.run import files
from ikusei.run.formats import FORMAT, UnreadableFormat, must_be_readable
from ikusei.run.provenance import provenance
from ikusei.run.tables import responses_table, samples_table, write_table
from ikusei.types import Group

DATA = "data.jsonl"  # the rows of a run that collects
STATUSES = ("running", "finished", "interrupted", "paused", "failed")  # a run that was killed still says running
SUMMARY = ("status", "steps", "seconds", "eval", "tokens_sampled", "tokens_trained")


@dataclass(frozen=True)
class RunInfo:
    """One line of `ikusei runs`."""

    path: Path
    name: str
    status: str  # one of STATUSES, or why it cannot be read
    created: str
    step: int
    summary: dict[str, Any] | None


@dataclass(frozen=True)
class Run:
    """A run that is being written. `create` makes a new one, `open` resumes one."""

    path: Path
    started: float  # on the monotonic clock, as if the parts before a resume had just run

    @classmethod
    def create(
        cls, root: Path, name: str, source: str, resolved: Mapping[str, Any], facts: Mapping[str, Any], path: Path | None = None
    ) -> Run:
        """A new folder `root`/<time>-<name>, or `path` where one is asked for.

        `source` is the recipe as written, `resolved` with every default filled in, `facts` what was probed on this machine.

        Raises:
            ValueError: `path` exists. A run is never overwritten.
        """
        if path is not None and path.exists():
            raise ValueError(f"{path}: exists, and a run is never overwritten; name a new folder, or continue it with --resume {path}")
        folder = new_folder(root, name) if path is None else path
        (folder / "logs").mkdir(parents=True)
        files.write_text(folder / "recipe.source.yaml", source)
        with files.whole_file(folder / "recipe.yaml") as unfinished:
            YAML().dump(dict(resolved), unfinished)  # as it is: JSON's null for .inf would not read back
        about = {"name": name, "status": "running", "created": now(), "seed": resolved.get("seed"), **provenance(), "facts": facts}
        files.write_record(folder / "run.json", about)  # last: now it is a run
        run = cls(folder, time.monotonic())
        run.event("created")
        return run

    @classmethod
    def open(cls, path: Path) -> Run:
        """A run to go on with. What a kill left half written is removed.

        Raises:
            ValueError: there is no run, it has finished, or a newer version has written it.
        """
        if not (path / "run.json").is_file():
            there = ", ".join(info.path.name for info in list_runs(path.parent)) or "none"
            raise ValueError(f"{path}: no run there; runs in {path.parent}: {there}. Give the folder of one of these")
        about = files.read_record(path / "run.json")
        if about["status"] == "finished":
            raise ValueError(f"{path}: has finished, so there is nothing to resume; start a new run, from {path / 'final'} if you like")
        files.clear_temporary(path)
        logs = [path / "metrics.jsonl", path / "events.jsonl"]
        for log in logs:
            files.cut_torn_line(log)
        before = max((row["seconds"] for log in logs for row in files.read_lines(log)[-1:]), default=0.0)
        files.write_record(path / "run.json", {**about, "status": "running"})  # in our format from here on
        run = cls(path, time.monotonic() - before)
        run.event("opened")
        return run

    @property
    def seconds(self) -> float:
        """How long this run has been running, including the time before a resume."""
        return round(time.monotonic() - self.started, 3)

    @property
    def facts(self) -> dict[str, Any]:
        """What was probed when the run was created (threads, precision, layout): a resumed run uses it again."""
        return files.read_record(self.path / "run.json")["facts"]

    def record(
        self,
        step: int,
        metrics: Mapping[str, float],
        groups: Sequence[Group] = (),
        kept: Sequence[bool] | None = None,
        advantages: Mapping[tuple[int, int], float] | None = None,
    ) -> None:
        """One step: its responses, then its line of metrics.

        `kept` says of each group whether it was trained on; `advantages` are by (position of the group, position of the response). A
        number that is not finite is written as null and noted as a warning.
        """
        if groups:
            (self.path / "responses").mkdir(exist_ok=True)
            write_table(self.path / "responses" / f"step-{step:06d}.parquet", responses_table(step, groups, kept, advantages or {}))
        lost = [name for name, value in metrics.items() if not math.isfinite(value)]
        if lost:
            self.event("warning", step=step, text=f"step {step}: not a finite number: {', '.join(lost)}")
        files.append_line(self.path / "metrics.jsonl", {"step": step, "seconds": self.seconds, **metrics})

    def event(self, kind: str, /, **fields: Any) -> None:
        """One line in events.jsonl."""
        files.append_line(self.path / "events.jsonl", {"time": now(), "seconds": self.seconds, "kind": kind, **fields})

    def checkpoint(
        self, step: int, write: Callable[[Path], None], state: Mapping[str, Any], keep: int = 2, best: int | None = None
    ) -> None:
        """Saves step `step` with `write(folder)` and keeps the newest `keep`, and that of step `best`.

        Raises:
            OSError: it could not be written (a full disk). The checkpoint before is whole, the unfinished one removed.
        """
        for log in (self.path / "metrics.jsonl", self.path / "events.jsonl"):
            if log.exists():
                files.sync(log)  # a checkpoint never stands without the lines before it
        try:
            with files.whole_folder(self.path / f"checkpoint-{step}") as unfinished:
                write(unfinished)
                state_file = {"format": FORMAT, "step": step, "files": sizes(unfinished), "state": state}
                (unfinished / "state.json").write_text(json.dumps(state_file), encoding="utf-8")
        except OSError as error:
            latest = self.latest_checkpoint()
            before = f"checkpoint-{latest[0]} is whole" if latest else "There is no checkpoint before it"
            raise OSError(f"{error}. {before}; make room, then --resume {self.path}") from error
        for old, folder in checkpoints(self.path)[: -max(keep, 1)]:
            if old != best:
                files.discard(folder)

    def latest_checkpoint(self) -> tuple[int, Path, dict[str, Any]] | None:
        """(step, folder, state) of the newest whole checkpoint."""
        for step, folder in reversed(checkpoints(self.path)):
            state = whole_state(folder)
            if state is not None:
                return step, folder, state
        return None

    def cut_after(self, step: int) -> None:
        """Removes what was recorded after `step`, alarms included: those steps will be taken again. 0 removes all of them."""
        for log in (self.path / "metrics.jsonl", self.path / "events.jsonl"):
            if log.exists():
                rows = [(line, json.loads(line)) for line in files.raw_lines(log)]
                kept = [line + b"\n" for line, row in rows if row.get("kind", "alarm") != "alarm" or row["step"] <= step]
                with files.whole_file(log) as unfinished:
                    unfinished.write_bytes(b"".join(kept))
        for table in self.path.glob("responses/step-*.parquet"):
            if int(table.stem.removeprefix("step-")) > step:
                table.unlink()
        for folder in self.path.glob("eval/*@*"):
            if int(folder.name.rpartition("@")[2]) > step:
                files.discard(folder)
        self.event("resumed", step=step)

    def save_final(self, write: Callable[[Path], None]) -> Path:
        """Writes the model that the run ends with."""
        with files.whole_folder(self.path / "final") as unfinished:
            write(unfinished)
        return self.path / "final"

    def eval_folder(self, name: str, step: int) -> Path:
        return self.path / "eval" / f"{name}@{step}"

    def write_eval(self, name: str, step: int, results: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
        """One evaluation: its figures (an `Interval` becomes value, low, high) and one row for each sample."""
        with files.whole_folder(self.eval_folder(name, step)) as unfinished:
            files.write_record(unfinished / "results.json", results)
            write_table(unfinished / "samples.parquet", samples_table(rows))

    def read_eval(self, name: str, step: int) -> dict[str, Any] | None:
        """The figures of an evaluation that has been made, so that a resumed run need not make it again."""
        results = self.eval_folder(name, step) / "results.json"
        return files.read_record(results) if results.exists() else None

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Writes summary.json, to which `seconds` is added, and its status into run.json. Only a "finished" run cannot be resumed."""
        full = {**summary, "seconds": self.seconds}
        assert set(full) == set(SUMMARY), f"summary has {sorted(full)}, not {sorted(SUMMARY)}"
        assert full["status"] in STATUSES, f"status {full['status']!r} is none of {STATUSES}"
        files.write_record(self.path / "summary.json", {key: full[key] for key in SUMMARY})
        files.write_record(self.path / "run.json", {**files.read_record(self.path / "run.json"), "status": full["status"]})
        self.event("ended", status=full["status"])


def list_runs(root: Path) -> list[RunInfo]:
    """The runs in a folder, oldest first. A run that a newer version has written has that as its status, and nothing else."""
    found = []
    for path in sorted(about.parent for about in root.glob("*/run.json")):
        try:
            about = files.read_record(path / "run.json")
        except UnreadableFormat as error:
            found.append(RunInfo(path, path.name, error.short, "", 0, None))
            continue
        rows = files.read_lines(path / "metrics.jsonl")
        summary = files.read_record(path / "summary.json") if (path / "summary.json").exists() else None
        found.append(RunInfo(path, about["name"], about["status"], about["created"], rows[-1]["step"] if rows else 0, summary))
    return found


def status_of(path: Path) -> str | None:
    """The status of the run in a folder; None where there is no run. Raises ValueError for one that a newer version has written."""
    return files.read_record(path / "run.json")["status"] if (path / "run.json").is_file() else None


def is_wall_clock(metric: str) -> bool:
    """True for the columns of metrics.jsonl that differ between two runs of the same recipe and seed."""
    return metric == "seconds" or metric.startswith(("time/", "memory/"))


def now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def new_folder(root: Path, name: str) -> Path:
    """Makes `root`/<time>-<name>, with another name where that exists: two runs that start in the same second get two folders."""
    stem = f"{datetime.now():%Y%m%d-%H%M%S}-" + re.sub(r"[^\w.-]+", "-", name)
    number = 1
    while True:
        folder = root / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1


def checkpoints(path: Path) -> list[tuple[int, Path]]:
    """(step, folder) of every folder checkpoint-<step>, oldest first, whole or not."""
    found = [(re.fullmatch(r"checkpoint-(\d+)", folder.name), folder) for folder in path.glob("checkpoint-*")]
    return sorted((int(match[1]), folder) for match, folder in found if match)


def sizes(folder: Path) -> dict[str, int]:
    return {file.relative_to(folder).as_posix(): file.stat().st_size for file in sorted(folder.rglob("*")) if file.is_file()}


def whole_state(folder: Path) -> dict[str, Any] | None:
    """The state in a checkpoint, or None where state.json cannot be read or a file that it lists has not its size. Raises ValueError for
    one that a newer version has written."""
    there = sizes(folder)
    if "state.json" not in there:
        return None
    try:
        saved = files.read_json(folder / "state.json")
    except ValueError:
        return None
    must_be_readable(saved, folder / "state.json")
    return saved["state"] if saved["files"].items() <= there.items() else None
