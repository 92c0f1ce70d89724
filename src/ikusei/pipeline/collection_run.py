"""A collection run: sample the model, score and rank its answers, and write them as rows to data.jsonl in the run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from ikusei.loops.collect import Collect, Collected, CollectSettings
from ikusei.loops.metrics import describe, lengths, num_target_tokens
from ikusei.loops.steps import stop_on_interrupt
from ikusei.recipe.build import Components
from ikusei.recipe.schema import Recipe
from ikusei.run import files
from ikusei.run.display import display
from ikusei.run.folder import DATA, Run


class CollectionRun:
    """One collection run. After a kill it goes on after the last step whose line of metrics is whole."""

    def __init__(self, recipe: Recipe, components: Components, run: Run, console: Console) -> None:
        assert recipe.collect is not None, "a recipe that collects"
        self.recipe, self.components, self.run, self.console = recipe, components, run, console
        self.settings: CollectSettings = recipe.collect
        self.step = self.tokens_sampled = self.num_rows = 0

    def go(self) -> str:
        """Runs the steps that are left; returns the run's status."""
        recipe, made = self.recipe, self.components
        self._restore()
        with made.workers(self.run.path / "logs" / "rewards.log") as workers, stop_on_interrupt() as stop:
            loop = Collect(made.policy.snapshot(), made.rows, workers, recipe.sampling, self.settings, recipe.seed)
            with display(loop.num_steps, str(self.run.path), self.console) as shown:
                shown.say(made.policy.description)
                for step in loop.steps(self.step, stop):
                    metrics = self._keep(step)
                    shown.update(step.number, metrics, None)
                shown.say(f"{self.num_rows} rows in {self.data}")
                if stop and self.step < loop.num_steps:
                    return "interrupted"
        if self.num_rows == 0:
            raise ValueError(
                "no row was collected: the answers to every prompt earn the same, are cut off, or no reward says anything of them; "
                "raise collect.num_responses, sampling.temperature or sampling.max_tokens, or take an easier task"
            )
        return "finished"

    def summary(self, status: str) -> dict[str, Any]:
        """The contents of summary.json, except `seconds`."""
        return {"status": status, "steps": self.step, "eval": {}, "tokens_sampled": self.tokens_sampled, "tokens_trained": 0}

    @property
    def data(self) -> Path:
        return self.run.path / DATA

    def _restore(self) -> None:
        """Back to the last whole step; later rows are cut."""
        rows = files.read_lines(self.run.path / "metrics.jsonl")
        if rows:
            last = rows[-1]
            self.step, self.num_rows, self.tokens_sampled = last["step"], int(last["rows"]), int(last["tokens_sampled"])
        self.run.cut_after(self.step)
        lines = files.raw_lines(self.data)[: self.num_rows] if self.data.exists() else []
        files.write_text(self.data, "".join(line.decode() + "\n" for line in lines))

    def _keep(self, step: Collected) -> dict[str, float]:
        """Write the step's rows, and last its line of metrics, which makes the step count."""
        kept = [row for row in step.rows if row is not None]
        for row in kept:
            files.append_line(self.data, row)
        self.step, self.num_rows = step.number, self.num_rows + len(kept)
        self.tokens_sampled += num_target_tokens(step.written)
        metrics = describe(step.groups, len(kept)) | lengths(step.written)
        metrics |= {"rows": float(self.num_rows), "tokens_sampled": float(self.tokens_sampled)}
        self.run.record(step.number, metrics, step.groups, [row is not None for row in step.rows])
        return metrics
