"""A training run: evaluate, train, evaluate again. `pipeline.train.run` calls it and records how it ended (outcome.py)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console

from ikusei.guard.workers import RewardWorkers
from ikusei.loops.filtering import Filter
from ikusei.loops.metrics import num_target_tokens
from ikusei.loops.online import Online
from ikusei.loops.precompute import Precompute, precompute_reference
from ikusei.loops.replay import Replay
from ikusei.loops.reward_scale import mean_and_std
from ikusei.loops.steps import Step, stop_on_interrupt
from ikusei.loops.supervised import Supervised
from ikusei.pipeline.evaluator import Evaluator
from ikusei.pipeline.gold_watch import GoldWatch
from ikusei.pipeline.outcome import warning_of
from ikusei.protocols import Reference, State, first_state
from ikusei.recipe.build import Components, reference_groups
from ikusei.recipe.schema import Recipe
from ikusei.run.display import Display, display
from ikusei.run.folder import Run


class TrainingRun:
    """One training run: its counters, and the steps between the two evaluations."""

    def __init__(self, recipe: Recipe, components: Components, run: Run, console: Console) -> None:
        self.recipe, self.components, self.run, self.console = recipe, components, run, console
        self.step = self.tokens_sampled = self.tokens_trained = 0
        self.evaluations: dict[str, dict[str, Any]] = {}
        self.watch = GoldWatch(recipe, components, run)

    def go(self) -> str:
        """Evaluate, train, evaluate; returns the run's status."""
        policy, train, watch = self.components.policy, self.recipe.train, self.watch
        with self._workers() as workers, stop_on_interrupt() as stop, display(train.steps, str(self.run.path), self.console) as shown:
            shown.say(policy.description)
            evaluate = Evaluator(self.recipe, self.components, self.run, shown, stop)
            self.precompute = self._precompute(evaluate, shown)
            checkpoint = self.run.latest_checkpoint()
            if checkpoint is None:
                self._normalise("before")
            loop = self._loop(workers)
            self._note("before", evaluate("before", 0, self.precompute, workers))
            start, state = self._restore(checkpoint, first_state(loop.algorithm))
            if watch.measure(start, workers, shown, stop):
                self._save(start, state)
            for step in loop.steps(start, state, stop) if not watch.stops else ():
                self._record(step, shown)
                best = watch.measure(step.number, workers, shown, stop)
                halts = watch.pauses or watch.stops or bool(stop)
                if best or halts or step.number % train.save_every == 0 or step.number == train.steps:
                    self._save(step.number, step.state)
                if halts:
                    break
            if self.step < train.steps and (stop or watch.pauses):
                return "interrupted" if stop else "paused"
            if watch.stops:
                self.step = watch.go_back(shown)
            elif self.step < train.steps:
                text = f"stopped after step {self.step}: filtering removed every remaining pair"
                self.run.event("warning", step=self.step, text=text)
                shown.say(f"warning: {text}")
            self._normalise("after")
            self.run.save_final(policy.export)
            self._note("after", evaluate("after", self.step, self.precompute, workers))
        return "finished"

    def summary(self, status: str) -> dict[str, Any]:
        """The contents of summary.json, except `seconds`."""
        return {"status": status, "steps": self.step, "eval": self.evaluations, **self._counted}

    @property
    def _counted(self) -> dict[str, int]:
        return {"tokens_sampled": self.tokens_sampled, "tokens_trained": self.tokens_trained}

    def _workers(self) -> AbstractContextManager[RewardWorkers | None]:
        return self.components.workers(self.run.path / "logs" / "rewards.log") if self.components.rewards else nullcontext()

    def _note(self, name: str, measured: dict[str, Any]) -> None:
        if measured:
            self.evaluations[name] = measured

    def _precompute(self, evaluate: Evaluator, shown: Display) -> Precompute:
        """The no-grad streams that the algorithm needs. For a fixed reference and rows of data they are computed here, once for all rows,
        and the reference is freed."""
        policy, needs, train, rows = self.components.policy, self.recipe.needs, self.recipe.train, self.components.rows
        reference = policy.reference(syncable=train.reference.every > 0) if needs & {"reference", "mismatched"} else None
        precompute = Precompute(needs, policy, reference, train.tokens_per_microbatch)
        if train.samples or reference is None or "mismatched" in needs or train.reference.every:
            return precompute
        shown.say("asking the reference, once for all rows")
        count = self.recipe.task.num_rows("train") if train.filtered else None  # a filter looks at every row
        asked = chain(rows.used(count or train.steps * train.examples_per_step), evaluate.held_out_rows())
        return replace(
            precompute,
            reference=None,
            cached=precompute_reference(reference, asked, self.run.path / "reference.parquet", train.tokens_per_microbatch),
        )

    def _loop(self, workers: RewardWorkers | None) -> Online | Supervised:
        recipe, made, policy, train = self.recipe, self.components, self.components.policy, self.recipe.train
        replay = Replay(made.replay_rows, train.replay) if made.replay_rows else None
        if train.samples:
            assert workers is not None, "recipe/validate.py has seen to it"
            return Online(policy, made.rows, workers, recipe.algorithm, recipe.sampling, train, recipe.seed, self.precompute, replay)
        chosen = Filter(made.rows, policy, workers, recipe.sampling, recipe.seed) if workers and train.filtered else None
        return Supervised(policy, made.rows, recipe.algorithm, train, self.precompute, replay, chosen)

    def _restore(self, checkpoint: tuple[int, Path, dict[str, Any]] | None, state: State) -> tuple[int, State]:
        """Load the last checkpoint, if there is one; returns the step and the algorithm's state."""
        self.run.cut_after(checkpoint[0] if checkpoint else 0)
        self.watch.restore()
        if checkpoint is None:
            return 0, state
        self.step, folder, saved = checkpoint
        self.components.policy.load(folder)
        if self._synced_reference is not None:
            self._synced_reference.load(folder / "reference")
        self.tokens_sampled, self.tokens_trained = saved["tokens_sampled"], saved["tokens_trained"]
        return self.step, saved["algorithm"]

    def _record(self, step: Step, shown: Display) -> None:
        self.step = step.number
        samples = self.recipe.train.samples
        trained = [g.without_failures() if samples else g for g, kept in zip(step.groups, step.kept, strict=True) if kept]
        self.tokens_sampled += num_target_tokens(step.groups) if samples else 0
        self.tokens_trained += num_target_tokens(trained)
        metrics = {**step.metrics, "tokens_sampled": float(self.tokens_sampled), "num_tokens": float(self.tokens_trained)}
        self.run.record(step.number, metrics, step.groups if samples else (), step.kept if samples else None, step.advantages)
        warning = warning_of(metrics)
        if warning:
            self.run.event("warning", step=step.number, text=f"step {step.number}: {warning}")
        shown.update(step.number, metrics, warning)
        self.watch.see(step, metrics, shown)

    @property
    def _synced_reference(self) -> Reference | None:
        return self.precompute.reference if self.recipe.train.reference.every > 0 else None

    def _save(self, step: int, state: Mapping[str, Any]) -> None:
        def write(folder: Path) -> None:
            self.components.policy.save(folder)
            if self._synced_reference is not None:
                self._synced_reference.save(folder / "reference")

        self.run.checkpoint(step, write, {"algorithm": dict(state), **self._counted}, best=self.watch.best)

    def _normalise(self, when: str) -> None:
        """A reward model's scale (loops/reward_scale.py); noted as an event."""
        policy, train = self.components.policy, self.recipe.train
        if not policy.rewards or train.normalise.num_prompts == 0:
            return
        groups = reference_groups(self.recipe, self.components, train.normalise)
        mean, std = mean_and_std(policy, groups, train.tokens_per_microbatch)
        policy.rescale(1 / std, -mean / std)
        self.run.event("normalised", when=when, mean=mean, std=std, samples=sum(len(group.responses) for group in groups))
