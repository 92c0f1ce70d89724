"""Tools for one reward: can it be cheated (`lint`), does it pass its test cases (`run_cases`), how would it score a past run (`replay`)?

Each takes a reward as a recipe names it: a name (exact), a file (my_reward.py:score) or a function of a package; or a whole recipe, whose
rewards are tested together, as in training.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.text import Text
from ruamel import yaml

from ikusei.guard.outcomes import FAILURES, RewardSpec
from ikusei.guard.workers import RewardWorkers
from ikusei.preflight.reward_lint import Lint, lint
from ikusei.recipe.find import find_recipe
from ikusei.recipe.reader import Document
from ikusei.recipe.schema import Recipe, read_document, read_recipe
from ikusei.run.folder import status_of
from ikusei.run.tables import read_table
from ikusei.types import Group, Prompt, Response, content_id

NONE: Mapping[str, str] = {}
MOST_SECONDS = 5.0  # largest timeout of a reward call in `lint`


def lint_file(
    reward: str,
    task: str | None = None,
    data: Path | None = None,
    num_rows: int = 24,
    seconds: float = 10.0,
    accept: Mapping[str, str] = NONE,
) -> Lint:
    """Attacks a reward on rows with gold answers, of a task or a data file. Raises ValueError with fewer than two such rows, or where
    `reward` cannot be read or is a learned reward model."""
    recipe = _recipe(reward, task, data)
    prompts = list(islice(_with_answers(recipe), num_rows))
    if len(prompts) < 2:
        raise ValueError(
            f"reward lint: {len(prompts)} rows with a column 'answer'; allowed: two or more, since attacks are built from gold answers; "
            "rename the column that holds them, or take another task"
        )
    specs = [replace(spec, timeout_s=min(spec.timeout_s, MOST_SECONDS)) for spec in _judging(recipe)]
    with RewardWorkers(specs) as workers:
        return lint(workers, prompts, seconds, accept=accept)


@dataclass(frozen=True)
class Case:
    """One test case: an answer, its expected reward and the reward it got."""

    where: str
    answer: str
    expected: float
    earned: float | None
    note: str = ""

    @property
    def right(self) -> bool:
        return self.earned is not None and abs(self.earned - self.expected) < 1e-6


def run_cases(reward: str, cases: Path) -> list[Case]:
    """Runs a jsonl file of {"prompt", "response", "score", ...}: other columns are passed to the reward. Raises ValueError where a row
    is malformed."""
    recipe = _recipe(reward, None, None)
    lines = enumerate(cases.read_text("utf-8-sig").split("\n"), start=1)
    rows = [(f"{cases}:{number}", line) for number, line in lines if line.strip()]
    groups, expected = [], []
    for where, line in rows:
        try:
            row = json.loads(line)
            expected.append(float(row.pop("score")))
            asked, answer = str(row.pop("prompt", "")), str(row.pop("response"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f'{where}: {error!r}; a row is {{"prompt": ..., "response": ..., "score": 1.0, ...}}') from error
        groups.append(Group(Prompt(content_id(where), (), asked, row, asked), (Response((), (), answer),)))
    with RewardWorkers(_judging(recipe)) as workers:
        scored = workers.score(groups)
    return [
        Case(where, group.responses[0].text, score, group.responses[0].total, _notes(group.responses[0]))
        for (where, _), score, group in zip(rows, expected, scored, strict=True)
    ]


@dataclass(frozen=True)
class Changed:
    """A run's answers rescored: mean reward before and after, how many changed or failed, and those that changed most."""

    answers: int
    before: float
    after: float
    differ: int
    failed: int
    most: tuple[tuple[str, str, float, float], ...]  # prompt, answer, before, after


def replay(run: Path, reward: str | None, most: int = 5) -> Changed:
    """Rescores a run's stored answers with `reward`, or with the present files of the run's own rewards. Raises ValueError where the run
    has stored none."""
    status_of(run)  # raises where a newer version wrote the run, before its recipe is read
    tables = sorted((run / "responses").glob("*.parquet"))
    if not tables:
        raise ValueError(f"{run}: it has stored no answers (responses/*.parquet); give the folder of a run that sampled")
    recipe = read_recipe(run / "recipe.yaml") if reward is None else _recipe(reward, None, None)
    rows = [row for table in tables for row in read_table(table) if row["total"] is not None]
    if any("columns" not in row for row in rows):
        raise ValueError(f"{run}: an older version stored its answers without the columns of the data; run it again, or replay a newer run")
    groups = [
        Group(
            Prompt(str(row["prompt_id"]), (), row["prompt"], json.loads(row["columns"]), row["prompt"]),
            (Response((), (), row["response"]),),
        )
        for row in rows
    ]
    with RewardWorkers(_judging(recipe)) as workers:
        now = [group.responses[0].total for group in workers.score(groups)]
    pairs = [(row["prompt"], row["response"], row["total"], total) for row, total in zip(rows, now, strict=True) if total is not None]
    changed = sorted((each for each in pairs if abs(each[2] - each[3]) > 1e-9), key=lambda each: -abs(each[2] - each[3]))
    before, after = ([each[i] for each in pairs] or [0.0] for i in (2, 3))
    return Changed(len(pairs), fmean(before), fmean(after), len(changed), len(rows) - len(pairs), tuple(changed[:most]))


def _recipe(reward: str, task: str | None, data: Path | None) -> Recipe:
    """Reads a recipe file, or builds a recipe from a reward and a task or data file. Raises ValueError where it is invalid."""
    if reward.endswith((".yaml", ".yml")):
        if task is not None or data is not None:
            raise ValueError(f"{reward}: a recipe names its own task; leave out --task and --data")
        return read_recipe(find_recipe(reward))
    if task is not None and data is not None:
        raise ValueError("give --task or --data, not both")
    rows: Any = {"name": "files", "path": str(data)} if data is not None else yaml.YAML(typ="safe").load(task or "arithmetic")
    return read_document(Document(Path("reward"), {"task": rows, "rewards": [reward], "algorithm": "grpo"}, {(): 1}))


def _judging(recipe: Recipe) -> list[RewardSpec]:
    """The recipe's training rewards; the task's own where it has none."""
    specs = [spec for spec in recipe.rewards if not spec.gold]
    specs = specs or [RewardSpec(path.replace(":", ".").rpartition(".")[2], path) for path in recipe.task.rewards]
    if any(spec.learned for spec in specs):
        raise ValueError("rewards: got a learned reward model; allowed: rewards in code; measure it on held-out pairs (train it with eval)")
    return specs


def _with_answers(recipe: Recipe) -> Iterator[Prompt]:
    """The training rows that have a gold answer."""
    count = recipe.task.num_rows("train")
    for index in range(10_000 if count is None else count):
        row = recipe.task.row("train", index)
        if row.columns.get("answer") is not None and row.prompt is not None:
            text = row.prompt if isinstance(row.prompt, str) else row.prompt[-1]["content"]
            yield Prompt(content_id(text), (), text, row.columns, row.prompt)


def _notes(response: Response) -> str:
    parts = {} if response.score is None else response.score.parts
    return "; ".join(f"{name} {part.status}: {part.note}" for name, part in parts.items() if part.status in FAILURES)


def show(result: Lint, console: Console) -> None:
    """Prints the result."""
    tried = f"{result.num_answers:,} answers to {result.num_rows} rows in {result.seconds:.0f} s"
    chance = ", ".join(f"{name} {value:.2f}" for name, value in result.chance.items())
    _say(console, f"{tried}; gold answers earn {result.gold:.3g} ({result.form})")
    _say(console, Text(f"chance baseline (gold answer = 1, lowest reward = 0): {chance}", "dim"))
    for finding in result.findings:
        worth = f"worth {finding.worth:.0%} of the gold answer, on {finding.share:.0%} of the rows"
        style, word = ("dim", f"accepted ({finding.accepted})") if finding.accepted else ("bold red", "got through")
        _say(console, Text.assemble("\n", (f"{word}: {finding.name}", style), f" · {finding.said}; {worth}"))
        _say(console, f"  prompt    {_line(finding.question)}\n  response  {_line(finding.answer)}\n  fix       {finding.fix}")
        if finding.note:
            _say(console, f"  note      {finding.note}")
    _say(console, Text("\nnothing got through", "bold green") if result.sound else Text("\nit can be cheated", "bold red"))


def show_cases(cases: Sequence[Case], console: Console) -> None:
    for case in cases:
        earned = case.note or "none" if case.earned is None else f"{case.earned:g}"
        mark = Text("ok    ", "green") if case.right else Text("wrong ", "bold red")
        _say(console, Text.assemble(mark, f"{case.where}  expected {case.expected:g}, got {earned}: {_line(case.answer)}"))


def show_changed(result: Changed, console: Console) -> None:
    means = f"mean {result.before:.4g} → {result.after:.4g}"
    _say(console, f"{result.answers:,} answers: {means}; {result.differ:,} differ; {result.failed:,} cannot be scored now")
    for prompt, answer, was, now in result.most:
        _say(console, f"  {was:g} → {now:g}   {_line(prompt)}   {_line(answer)}")


def as_json(result: Lint) -> dict[str, Any]:
    return {**asdict(result), "sound": result.sound}


def _say(console: Console, text: str | Text) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _line(text: str) -> str:
    shown = text.replace("\n", "⏎")
    return shown if len(shown) <= 120 else f"{shown[:100]} … {shown[-15:]}"
