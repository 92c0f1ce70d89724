"""Read a run folder into one record, for reports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from ikusei.intervals import Interval
from ikusei.run.files import read_lines, read_record
from ikusei.run.formats import with_current_keys
from ikusei.run.tables import read_table

GOLD = "gold"  # the name of the evaluations that the watch makes during a run
NOTHING = 1e-4  # rounding between two ways of laying out the same rows
IMPLICIT = ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies")  # of pairs; the other rewards/* judge answers


@dataclass(frozen=True)
class Evaluation:
    """One folder eval/<name>@<step>."""

    name: str
    step: int
    results: dict[str, Any]
    samples: list[dict[str, Any]]
    greedy: list[dict[str, Any]]  # the greedy answer to each prompt

    @property
    def intervals(self) -> dict[str, Interval]:
        """The figures that have an interval; one that was not finite is null in the file and has none to show."""
        found = {key: value for key, value in self.results.items() if isinstance(value, Mapping) and None not in value.values()}
        own = IMPLICIT if self.is_its_own_reference else ()
        return {key: Interval(value["value"], value["low"], value["high"]) for key, value in found.items() if key not in own}

    @property
    def is_its_own_reference(self) -> bool:
        """Before the first step a policy has moved nowhere from its reference: implicit rewards are 0 by definition and say nothing."""
        values = [self.results[key]["value"] for key in ("rewards/chosen", "rewards/rejected") if key in self.results]
        return len(values) == 2 and all(value is not None and abs(value) < NOTHING for value in values)

    @property
    def sampled(self) -> bool:
        """Whether answers were sampled and scored, not only rows of data."""
        return "num_samples" in self.results

    @property
    def by_reward(self) -> dict[str, Interval]:
        """The mean of each reward over the sampled answers, by rewards/<name>."""
        return {key: value for key, value in self.intervals.items() if key.startswith("rewards/") and key not in IMPLICIT}

    def number(self, key: str) -> float | None:
        """A figure that has no interval."""
        value = self.results.get(key)
        return None if isinstance(value, Mapping | list) else value

    @property
    def pass_at(self) -> dict[int, Interval]:
        return self.curve("pass")

    def curve(self, name: str) -> dict[int, Interval]:
        """{k: interval} of the figures NAME@k."""
        return {int(key.removeprefix(f"{name}@")): value for key, value in self.intervals.items() if key.startswith(f"{name}@")}


@dataclass(frozen=True)
class RunRecord:
    """The contents of a run folder, as far as the run came: any part may be missing."""

    about: dict[str, Any]  # run.json
    rows: list[dict[str, Any]]  # metrics.jsonl
    events: list[dict[str, Any]]
    evaluations: list[Evaluation]
    recipe: str
    settings: dict[str, Any]  # the recipe as data, by the present names of its keys
    collected: list[dict[str, Any]]  # data.jsonl, of a run that collects, as far as its steps are recorded

    @property
    def collects(self) -> bool:
        return "collect" in self.settings

    @property
    def step(self) -> int:
        return self.rows[-1]["step"] if self.rows else 0

    @property
    def seconds(self) -> float:
        return max(row["seconds"] for row in [*self.rows, *self.events])

    @property
    def before(self) -> Evaluation | None:
        return self.newest("before")

    @property
    def after(self) -> Evaluation | None:
        return self.newest("after")

    def newest(self, name: str) -> Evaluation | None:
        return max((made for made in self.evaluations if made.name == name), key=lambda made: made.step, default=None)

    def line(self, metric: str) -> tuple[list[int], list[float]]:
        """(steps, values) where the metric was recorded; NaN where it was not a number."""
        found = [(row["step"], math.nan if row[metric] is None else row[metric]) for row in self.rows if metric in row]
        return [step for step, _ in found], [value for _, value in found]

    def finite(self, metric: str) -> list[float]:
        return [value for value in self.line(metric)[1] if math.isfinite(value)]


def read_run(run_folder: Path) -> RunRecord:
    """Reads a run folder, finished or not.

    Raises:
        ValueError: it is none, or a newer version has written it.
    """
    if not (run_folder / "run.json").is_file():
        raise ValueError(f"{run_folder}: no run there (it has no run.json); give a folder that `ikusei runs` lists")
    about = read_record(run_folder / "run.json")
    rows = [with_no_signal(row) for row in read_lines(run_folder / "metrics.jsonl")]
    evaluations = [read_evaluation(results.parent) for results in sorted(run_folder.glob("eval/*@*/results.json"))]
    recipe = (run_folder / "recipe.yaml").read_text(encoding="utf-8")
    settings, _ = with_current_keys(YAML(typ="safe").load(recipe))
    collected = read_lines(run_folder / "data.jsonl")[: int(rows[-1]["rows"])] if rows and "collect" in settings else []
    return RunRecord(about, rows, read_lines(run_folder / "events.jsonl"), evaluations, recipe, settings, collected)


def read_evaluation(folder: Path) -> Evaluation:
    name, _, step = folder.name.rpartition("@")
    return evaluation(name, int(step), read_record(folder / "results.json"), read_table(folder / "samples.parquet"))


def evaluation(name: str, step: int, results: dict[str, Any], rows: list[dict[str, Any]]) -> Evaluation:
    """An evaluation, with the rows of samples.parquet split into sampled and greedy ones."""
    sampled, greedy = ([row for row in rows if bool(row.get("greedy")) is which] for which in (False, True))
    return Evaluation(name, step, results, sampled, greedy)


def with_no_signal(row: dict[str, Any]) -> dict[str, Any]:
    """A row of metrics with the share of groups without a learning signal: all responses wrong, or all right."""
    if row.get("groups/all_zero") is None or row.get("groups/all_full") is None:
        return row
    return {**row, "groups/no_signal": row["groups/all_zero"] + row["groups/all_full"]}
