"""From a recipe to a finished run: measure, train, measure again, report. Whatever happens, the run folder says how it ended."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console

from ikusei.backends.local import export
from ikusei.guard.workers import RewardWorkers
from ikusei.loops.evaluate import Evaluation
from ikusei.loops.few_shot import evaluate_with_shots
from ikusei.loops.filtering import Filter
from ikusei.loops.held_out import bits_per_byte, held_out, judged
from ikusei.loops.metrics import scored_tokens
from ikusei.loops.normalise import Normalising, mean_and_std
from ikusei.loops.online import Online
from ikusei.loops.order import in_order
from ikusei.loops.precompute import Before, recall
from ikusei.loops.preference_gap import advice, distance
from ikusei.loops.replay import Replay
from ikusei.loops.steps import NonFinite, RewardsFailed, Step, StopAsked, stop_on_interrupt
from ikusei.loops.supervised import Supervised, SupervisedSettings
from ikusei.models.causal import CausalModel
from ikusei.models.heads import RewardModel
from ikusei.models.load import is_reward_model, load_model
from ikusei.pipeline.collection_run import Collecting
from ikusei.pipeline.gold_watch import Watching
from ikusei.pipeline.outcome import Outcome, warning_of
from ikusei.protocols import Reference
from ikusei.recipe.build import Parts, build
from ikusei.recipe.schema import Recipe, read_recipe, resolved
from ikusei.report.run import write_report
from ikusei.run.display import Display, display
from ikusei.run.folder import Run
from ikusei.samplers.local import LocalSampler
from ikusei.types import Group


def train(recipe: str | Path, *overrides: str, folder: Path | None = None, console: Console | None = None) -> Outcome:
    """Carry out a recipe of one stage. `overrides` are `key=value`; the run goes to `folder`, by default a new one in runs/.

    Raises RecipeError or ValueError, before anything is written, where the input is not right.
    """
    source = Path(recipe).read_text(encoding="utf-8") + "".join(f"# override: {override}\n" for override in overrides)
    return begin(read_recipe(Path(recipe), overrides), source, folder, console or Console())


def begin(recipe: Recipe, source: str, folder: Path | None, console: Console) -> Outcome:
    """A new run of a recipe that was read from the text `source`."""
    parts = build(recipe)
    if parts.rewards:
        with parts.workers():  # a reward that cannot be used is told before there is a run
            pass
    run = Run.create(Path("runs"), recipe.name, source, resolved(recipe), parts.facts, folder)
    return _conduct(recipe, parts, run, console)


def resume(folder: str | Path, console: Console | None = None) -> Outcome:
    """Go on with a run from its last checkpoint, bit-equal to one that was never stopped: what was probed at its start is used again."""
    run = Run.open(Path(folder))
    recipe = read_recipe(run.path / "recipe.yaml")
    found = run.facts
    recipe = replace(recipe, policy=replace(recipe.policy, threads=found["threads"], layout=found["layout"]))
    return _conduct(recipe, build(recipe), run, console or Console())


def _conduct(recipe: Recipe, parts: Parts, run: Run, console: Console) -> Outcome:
    """The run from where it stands to its end."""
    journey = (Journey if recipe.collect is None else Collecting)(recipe, parts, run, console)
    problem = None
    try:
        status = journey.go()
    except (NonFinite, RewardsFailed, OSError, ValueError) as error:
        problem, status = str(error), "failed"
        run.event("error", text=problem)
    except KeyboardInterrupt:
        status = "interrupted"
    except BaseException as error:
        run.event("error", text=repr(error))
        run.finish(journey.summary("failed"))
        raise
    run.finish(journey.summary(status))
    write_report(run.path)
    return Outcome(run.path, json.loads((run.path / "summary.json").read_text()), problem)


class Journey:
    """One training run under way: its counters, and the steps between the two measurements."""

    def __init__(self, recipe: Recipe, parts: Parts, run: Run, console: Console) -> None:
        self.recipe, self.parts, self.run, self.console = recipe, parts, run, console
        self.supervised = isinstance(recipe.train, SupervisedSettings)
        self.step = self.tokens_sampled = self.tokens_trained = 0
        self.evaluations: dict[str, dict[str, Any]] = {}
        self.watching = Watching(recipe, parts, run)

    def go(self) -> str:
        """Measure, train, measure; returns the run's status."""
        policy, recipe = self.parts.policy, self.recipe
        title = str(self.run.path)
        with self._workers() as workers, stop_on_interrupt() as stop, display(recipe.train.steps, title, self.console) as shown:
            shown.say(policy.said)
            self.before = self._before(shown)
            found = self.run.latest_checkpoint()
            if found is None:
                self._normalise("before")
            loop = self._loop(workers)
            self._measure("before", 0, workers, shown, stop)
            start, state = self._take_up(found, loop.algorithm.start())
            watch = self.watching
            if watch.gains(start, workers, shown, stop):
                self._save(start, state)
            for step in loop.steps(start, state, stop) if not watch.stops else ():
                self._keep_record(step, shown)
                best = watch.gains(step.number, workers, shown, stop)
                halts = watch.pauses or watch.stops or bool(stop)
                if best or halts or step.number % recipe.train.save_every == 0 or step.number == recipe.train.steps:
                    self._save(step.number, step.state)
                if halts:
                    break
            if self.step < recipe.train.steps and (stop or watch.pauses):
                return "interrupted" if stop else "paused"
            if watch.stops:
                self.step = watch.go_back(shown)
            elif self.step < recipe.train.steps:
                self._warn(f"ended after step {self.step}: the policy has outgrown the pairs that were left", shown)
            self._normalise("after")
            self.run.save_final(lambda folder: export(policy.causal.model, policy.tokenizer, folder))
            self._measure("after", self.step, workers, shown, stop)
        return "finished"

    def summary(self, status: str) -> dict[str, Any]:
        """summary.json, but for the seconds."""
        return {"status": status, "steps": self.step, "eval": self.evaluations, **self._counted}

    @property
    def _counted(self) -> dict[str, int]:
        return {"tokens_sampled": self.tokens_sampled, "tokens_trained": self.tokens_trained}

    def _workers(self) -> AbstractContextManager[RewardWorkers | None]:
        return self.parts.workers(self.run.path / "logs" / "rewards.log") if self.parts.rewards else nullcontext()

    def _before(self, shown: Display) -> Before:
        """Who is asked before each step. A reference that stays is asked of all rows now, and then let go."""
        policy, needs, train = self.parts.policy, self.recipe.algorithm.needs, self.recipe.train
        reference = policy.reference(moves=train.reference.every > 0) if needs & {"reference", "mismatched"} else None
        before = Before(needs, policy, reference, train.tokens_per_part)
        if not self.supervised or reference is None or "mismatched" in needs or train.reference.every:
            return before
        shown.say("asking the reference, once for all rows")
        count = self.recipe.task.num_rows("train") if train.filtered else None  # a filter looks at every row
        rows = chain(self.parts.rows.used(count or train.steps * train.examples_per_step), self._held_out_rows())
        return replace(before, reference=None, stored=recall(reference, rows, self.run.path / "reference.parquet", train.tokens_per_part))

    def _loop(self, workers: RewardWorkers | None) -> Online | Supervised:
        recipe, parts, policy = self.recipe, self.parts, self.parts.policy
        replay = Replay(parts.replay_rows, recipe.train.replay) if parts.replay_rows else None
        if self.supervised:
            chosen = Filter(parts.rows, policy, workers, recipe.sampling, recipe.seed) if workers and recipe.train.filtered else None
            return Supervised(policy, parts.rows, recipe.algorithm, recipe.train, self.before, replay, chosen)
        assert workers is not None, "parts.fits_together has seen to it"
        return Online(policy, parts.rows, workers, recipe.algorithm, recipe.sampling, recipe.train, recipe.seed, self.before, replay)

    def _take_up(self, found: tuple[int, Path, dict[str, Any]] | None, state: Any) -> tuple[int, Any]:
        """Where the last checkpoint left off, else the beginning."""
        self.run.cut_after(found[0] if found else 0)
        self.watching.take_up()
        if found is None:
            return 0, state
        self.step, folder, saved = found
        self.parts.policy.load(folder)
        if self._reference_moves:
            self._reference.load(folder / "reference")
        self.tokens_sampled, self.tokens_trained = saved["tokens_sampled"], saved["tokens_trained"]
        return self.step, saved["algorithm"]

    def _keep_record(self, step: Step, shown: Display) -> None:
        self.step = step.number
        online = not self.supervised
        trained = [g.without_failures() if online else g for g, kept in zip(step.groups, step.kept, strict=True) if kept]
        self.tokens_sampled += scored_tokens(step.groups) if online else 0
        self.tokens_trained += scored_tokens(trained)
        metrics = {**step.metrics, "tokens_sampled": float(self.tokens_sampled), "num_tokens": float(self.tokens_trained)}
        self.run.record(step.number, metrics, step.groups if online else (), step.kept if online else None, step.advantages)
        warning = warning_of(metrics)
        if warning:
            self.run.event("warning", step=step.number, text=f"step {step.number}: {warning}")
        shown.update(step.number, metrics, warning)
        self.watching.see(step, metrics, shown)

    @property
    def _reference_moves(self) -> bool:
        return self.recipe.train.reference.every > 0 and self.before.reference is not None

    @property
    def _reference(self) -> Reference:
        assert self.before.reference is not None, "asked only where it moves"
        return self.before.reference

    def _save(self, step: int, state: Any) -> None:
        def write(folder: Path) -> None:
            self.parts.policy.save(folder)
            if self._reference_moves:
                self._reference.save(folder / "reference")

        self.run.checkpoint(step, write, {"algorithm": dict(state), **self._counted}, best=self.watching.best)

    def _normalise(self, when: str) -> None:
        """A reward model's scale (loops/normalise.py); noted as an event."""
        model, settings = self.parts.policy.causal, self.recipe.train.normalise if self.supervised else None
        if not isinstance(model, RewardModel) or settings is None or settings.num_prompts == 0:
            return
        groups = reference_groups(self.recipe, self.parts, settings)
        mean, std = mean_and_std(self.parts.policy, groups, self.recipe.train.tokens_per_part)
        model.rescale(1 / std, -mean / std)
        self.run.event("normalised", when=when, mean=mean, std=std, samples=sum(len(group.responses) for group in groups))

    def _measure(self, name: str, step: int, workers: RewardWorkers | None, shown: Display, stop: StopAsked) -> None:
        """An evaluation, unless it was made before a resume. Ctrl-C ends it at once: it is made again on resuming."""
        settings = self.recipe.eval
        if settings.num_prompts == 0:
            return
        results = self.run.read_eval(name, step)
        if results is None:
            found, rows = self._on_held_out_rows(shown, workers), []
            if workers is not None and isinstance(self.parts.policy.causal, CausalModel):
                sampled = self._on_samples(name, workers, shown, stop)
                found, rows = found | sampled.results, sampled.rows
            if not found:
                return
            self.run.write_eval(name, step, {"name": name, "step": step, **found}, rows)
            results = self.run.read_eval(name, step)
            assert results is not None, "an evaluation that was just written"
        self.evaluations[name] = {key: value for key, value in results.items() if isinstance(value, dict)}

    def _on_samples(self, name: str, workers: RewardWorkers, shown: Display, stop: StopAsked) -> Evaluation:
        """What the policy writes to held-out prompts, judged by the rewards."""
        settings, recipe = self.recipe.eval, self.recipe
        num_prompts = len(self.parts.eval_rows.held_out(settings.num_prompts))
        if num_prompts == 0:
            shown.say("nothing is sampled: the task holds no row out; give it more rows or a larger test_share")
            return Evaluation({}, [])
        fewer = f" ({settings.num_prompts} asked for; there are no other ones)" if num_prompts < settings.num_prompts else ""
        shown.say(f"measuring {name} training: {num_prompts} held-out prompts{fewer} × {settings.num_samples} answers")
        sampler = self.parts.policy.snapshot()
        return evaluate_with_shots(sampler, self.parts.eval_rows, workers, settings, recipe.sampling, recipe.seed, stop)

    def _warn(self, text: str | None, shown: Display) -> None:
        if text is not None:
            self.run.event("warning", step=self.step, text=text)
            shown.say(f"warning: {text}")

    def _held_out_rows(self) -> list[Group]:
        return self.parts.rows.held_out_examples(self.recipe.eval.num_prompts) if self.supervised else []

    def _on_held_out_rows(self, shown: Display, workers: RewardWorkers | None) -> dict[str, Any]:
        """What a supervised algorithm says of rows that it does not learn from, and of those that are replayed."""
        groups = self._held_out_rows()
        found: dict[str, Any] = {}
        if groups:
            shown.say(f"measuring on {len(groups)} held-out rows")
            found |= held_out(self.before, self.recipe.algorithm, groups)
            if isinstance(self.parts.policy.causal, RewardModel):
                found |= judged(self.before, groups)
            elif any(group.pairs for group in groups):
                budget = self.recipe.train.tokens_per_part
                far = distance(self.parts.policy, groups, self.recipe.sampling, self.recipe.seed, budget, workers)
                self._warn(advice(far) if self.step == 0 else None, shown)
                found |= far
            elif all(group.responses[0].label is None for group in groups):
                found["bits_per_byte"] = bits_per_byte(self.before, groups)
        replayed = self.parts.replay_rows.held_out_examples(self.recipe.eval.num_prompts) if self.parts.replay_rows else []
        return found | ({"replay/bits_per_byte": bits_per_byte(self.before, replayed)} if replayed else {})


def reference_groups(recipe: Recipe, parts: Parts, settings: Normalising) -> list[Group]:
    """What the model that a reward model is made from writes to training prompts; the same at every call."""
    rows = parts.rows.task.num_rows("train")
    count = settings.num_prompts if rows is None else min(settings.num_prompts, rows)
    if not isinstance(recipe.model, str) or is_reward_model(recipe.model):
        return parts.rows.examples(0, count)
    policy = parts.policy
    writer = LocalSampler(CausalModel(load_model(recipe.model), policy.causal.layout), policy.tokenizer, policy.settings.num_slots)
    prompts = parts.rows.prompts(0, count)
    return in_order(prompts, list(writer.sample(prompts, settings.num_samples, recipe.sampling, recipe.seed)))
