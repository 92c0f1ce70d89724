"""From a recipe to a finished run: measure, train, measure again, report. Whatever happens, the run folder says how it ended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from ikusei.backends.local import LocalPolicy, LocalSettings, export
from ikusei.guard.outcomes import FAILURES, RewardSpec
from ikusei.guard.workers import RewardWorkers
from ikusei.loops.data import Rows
from ikusei.loops.evaluate import evaluate
from ikusei.loops.measure import scored_tokens
from ikusei.loops.online import Online
from ikusei.loops.steps import NonFinite, RewardsFailed, Step, StopAsked, stop_on_interrupt
from ikusei.loops.supervised import Supervised, SupervisedSettings
from ikusei.models.load import load_model, load_tokenizer
from ikusei.models.make import MakeModel, make_model, make_tokenizer
from ikusei.protocols import Metrics
from ikusei.recipe import Recipe, read_recipe, resolved
from ikusei.run.display import Display, display
from ikusei.run.folder import Run, checkpoints
from ikusei.run.report import write_report

TASK = ("num_rows", "row", "rewards")  # what a user's own class must have
MEMBERS = {"task": TASK, "eval_task": TASK, "algorithm": ("needs", "start", "keep", "credit", "loss", "advance")}
SERVED = frozenset({"old", "reference"})  # what the loops can ask before the split
FAILED = tuple(f"{metric}/" for metric in FAILURES.values())
EXIT = {"finished": 0, "failed": 1, "interrupted": 130}


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its folder, summary.json as data, and what went wrong, if anything."""

    folder: Path
    summary: dict[str, Any]
    problem: str | None = None

    @property
    def exit_code(self) -> int:
        return EXIT[self.summary["status"]]


def train(recipe: str | Path, *overrides: str, folder: Path | None = None, console: Console | None = None) -> Outcome:
    """Carry out a recipe. `overrides` are `key=value`; the run goes to `folder`, by default a new one in runs/.

    Raises RecipeError or ValueError, before anything is written, where the input is not right.
    """
    read = read_recipe(Path(recipe), overrides)
    parts = build(read)
    if parts.rewards:
        with RewardWorkers(parts.rewards):  # a reward that cannot be used is told before there is a run
            pass
    source = Path(recipe).read_text(encoding="utf-8") + "".join(f"# override: {override}\n" for override in overrides)
    run = Run.create(Path("runs"), read.name, source, resolved(read), parts.facts, folder)
    return _conduct(read, parts, run, console or Console())


def resume(folder: str | Path, console: Console | None = None) -> Outcome:
    """Go on with a run from its last checkpoint, bit-equal to one that was never stopped: what was probed at its start is used again."""
    run = Run.open(Path(folder))
    recipe = read_recipe(run.path / "recipe.yaml")
    found = run.facts
    recipe = replace(recipe, policy=replace(recipe.policy, threads=found["threads"], layout=found["layout"]))
    return _conduct(recipe, build(recipe), run, console or Console())


@dataclass(frozen=True)
class Parts:
    """What a recipe's words stand for, loaded."""

    policy: LocalPolicy
    rows: Rows
    eval_rows: Rows
    rewards: tuple[RewardSpec, ...]

    @property
    def facts(self) -> dict[str, Any]:
        causal = self.policy.causal
        parameters = sum(p.numel() for p in causal.model.parameters())
        return {"threads": self.policy.threads, "layout": causal.layout, "precision": causal.precision, "parameters": parameters}


def build(recipe: Recipe) -> Parts:
    """Load the model, the rows and the names of the rewards. Raises ValueError where one of them is not right."""
    for section, members in MEMBERS.items():
        missing = [member for member in members if member not in dir(getattr(recipe, section))]
        if missing:
            raise ValueError(f"{section}: the class has no {', '.join(missing)}; it must have {', '.join(members)} (ikusei.protocols)")
    unknown = recipe.algorithm.needs - SERVED
    if unknown:
        raise ValueError(
            f"algorithm: needs {', '.join(sorted(unknown))}; allowed: {', '.join(sorted(SERVED))}; the rest goes into credit()"
        )
    json.dumps(dict(recipe.algorithm.start()))  # a state that cannot be saved is told now and not at the first checkpoint
    policy = load_policy(recipe.model, recipe.policy, recipe.seed)
    in_order = isinstance(recipe.train, SupervisedSettings) and recipe.train.in_order
    rows = Rows(recipe.task, policy.tokenizer, recipe.seed, policy.causal.context, in_order)
    rows.check(with_responses=isinstance(recipe.train, SupervisedSettings))
    eval_rows = Rows(recipe.eval_task, policy.tokenizer, recipe.seed, policy.causal.context)
    eval_rows.held_out(recipe.eval.num_prompts)
    return Parts(policy, rows, eval_rows, rewards_of(recipe))


def load_policy(model: str | MakeModel, settings: LocalSettings, seed: int) -> LocalPolicy:
    """The policy behind a recipe's `model`."""
    if isinstance(model, MakeModel):
        tokenizer = make_tokenizer(model)
        return LocalPolicy(make_model(model, tokenizer, seed), tokenizer, settings)
    return LocalPolicy(load_model(model), load_tokenizer(model), settings)


def rewards_of(recipe: Recipe) -> tuple[RewardSpec, ...]:
    """The recipe's rewards, else those that the task brings, else those of the task that it is evaluated on."""
    brought = recipe.task.rewards or recipe.eval_task.rewards
    return recipe.rewards or tuple(RewardSpec(path.replace(":", ".").rpartition(".")[2], path) for path in brought)


def _conduct(recipe: Recipe, parts: Parts, run: Run, console: Console) -> Outcome:
    """The run from where it stands to its end."""
    journey = Journey(recipe, parts, run, console)
    problem = None
    try:
        status = journey.go()
    except (NonFinite, RewardsFailed, OSError) as error:
        problem, status = str(error), "failed"
        run.event("error", text=problem)
    except KeyboardInterrupt:
        status = "interrupted"
    except BaseException as error:
        run.event("error", text=repr(error))
        run.finish(journey.summary("failed"))
        raise
    summary = journey.summary(status)
    run.finish(summary)
    write_report(run.path)
    return Outcome(run.path, json.loads((run.path / "summary.json").read_text()), problem)


class Journey:
    """One run under way: its counters, and the steps between the two measurements."""

    def __init__(self, recipe: Recipe, parts: Parts, run: Run, console: Console) -> None:
        self.recipe, self.parts, self.run, self.console = recipe, parts, run, console
        self.step = self.tokens_sampled = self.tokens_trained = 0
        self.evaluations: dict[str, dict[str, Any]] = {}

    def go(self) -> str:
        """Measure, train, measure; returns the run's status."""
        policy, recipe = self.parts.policy, self.recipe
        title = str(self.run.path)
        with self._workers() as workers, stop_on_interrupt() as stop, display(recipe.train.steps, title, self.console) as shown:
            shown.say(policy.said)
            loop = self._loop(workers)
            self._measure("before", 0, workers, shown, stop)
            start, state = self._take_up(loop.algorithm.start())
            for step in loop.steps(start, state, stop):
                self._keep_record(step, shown)
                if step.number % recipe.train.save_every == 0 or stop or step.number == recipe.train.steps:
                    self._save(step.number, step.state)
            if stop and self.step < recipe.train.steps:
                return "interrupted"
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
        return RewardWorkers(self.parts.rewards, log=self.run.path / "logs" / "rewards.log") if self.parts.rewards else nullcontext()

    def _loop(self, workers: RewardWorkers | None) -> Online | Supervised:
        recipe, policy = self.recipe, self.parts.policy
        if isinstance(recipe.train, SupervisedSettings):
            return Supervised(policy, self.parts.rows, recipe.algorithm, recipe.train)
        if workers is None:
            raise ValueError("rewards: none given, and the task brings none; the algorithm learns from rewards; name at least one")
        reference = policy.reference() if "reference" in recipe.algorithm.needs else None
        return Online(policy, self.parts.rows, workers, recipe.algorithm, recipe.sampling, recipe.train, recipe.seed, reference)

    def _take_up(self, state: Any) -> tuple[int, Any]:
        """Where the last checkpoint left off, else the beginning."""
        found = self.run.latest_checkpoint()
        self.run.cut_after(found[0] if found else 0)
        if found is None:
            return 0, state
        self.step, folder, saved = found
        self.parts.policy.load(folder)
        self.tokens_sampled, self.tokens_trained = saved["tokens_sampled"], saved["tokens_trained"]
        return self.step, saved["algorithm"]

    def _keep_record(self, step: Step, shown: Display) -> None:
        self.step = step.number
        online = not isinstance(self.recipe.train, SupervisedSettings)
        trained = [g.without_failures() if online else g for g, kept in zip(step.groups, step.kept, strict=True) if kept]
        self.tokens_sampled += scored_tokens(step.groups) if online else 0
        self.tokens_trained += scored_tokens(trained)
        metrics = {**step.metrics, "tokens_sampled": float(self.tokens_sampled), "num_tokens": float(self.tokens_trained)}
        self.run.record(step.number, metrics, step.groups if online else (), step.kept if online else None, step.advantages)
        warning = warning_of(metrics)
        if warning:
            self.run.event("warning", step=step.number, text=f"step {step.number}: {warning}")
        shown.update(step.number, metrics, warning)

    def _save(self, step: int, state: Any) -> None:
        self.run.checkpoint(step, self.parts.policy.save, {"algorithm": dict(state), **self._counted})

    def _measure(self, name: str, step: int, workers: RewardWorkers | None, shown: Display, stop: StopAsked) -> None:
        """An evaluation, unless it was made before a resume. Ctrl-C ends it at once: it is made again on resuming."""
        settings, recipe = self.recipe.eval, self.recipe
        if settings.num_prompts == 0 or workers is None:
            return
        results = self.run.read_eval(name, step)
        if results is None:
            prompts = self.parts.eval_rows.held_out(settings.num_prompts)
            if not prompts:
                shown.say("nothing is measured: the task holds no row out; give it more rows or a larger test_share")
                return
            shown.say(f"measuring {name} training: {len(prompts)} held-out prompts × {settings.num_samples} answers")
            found = evaluate(self.parts.policy.snapshot(), prompts, workers, settings, recipe.sampling, recipe.seed, stop)
            self.run.write_eval(name, step, {"name": name, "step": step, **found.results}, found.rows)
            results = self.run.read_eval(name, step)
            assert results is not None, "an evaluation that was just written"
        self.evaluations[name] = {key: value for key, value in results.items() if isinstance(value, dict)}


def warning_of(metrics: Metrics) -> str | None:
    """What a person should know of this step, in words; None where all is well."""
    failed = [(*name.split("/", 1), value) for name, value in metrics.items() if name.startswith(FAILED)]
    told = [f"{kind.replace('_', ' ')} of {reward}: {value:g}" for kind, reward, value in failed]
    if metrics.get("completions/clipped_ratio", 0.0) > 0.8:
        told.append("more than 80 % of the answers are cut off at sampling.max_tokens")
    if metrics.get("groups/kept") == 0.0:
        told.append("no group of this step teaches anything: each one's answers all earned the same, or none could be scored")
    return "; ".join(told) or None


def figure(measured: Mapping[str, float | None]) -> str:
    """A value and its interval in words; of one prompt alone nothing is known but the value."""
    value, low, high = (measured[name] for name in ("value", "low", "high"))
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} ({low:.3f} to {high:.3f})"


def tell(outcome: Outcome, console: Console) -> None:
    """The last lines of a run: what was gained, where the report is, and how to go on."""
    before, after = (outcome.summary["eval"].get(name, {}) for name in ("before", "after"))
    console.print()
    if outcome.problem:
        console.print(Text.assemble(("failed: ", "bold red"), outcome.problem))
    if outcome.summary["status"] != "finished":
        kept = [step for step, _ in checkpoints(outcome.folder)]
        have = f"what was learned up to step {max(kept)} is kept" if kept else "nothing was learned yet"
        mend = "mend the cause, then " if outcome.problem else ""
        console.print(f"{have}; {mend}go on with   ikusei train --resume {outcome.folder}", markup=False, highlight=False)
    for name in ("pass@1", "reward"):
        if name in before and name in after:
            old, new = figure(before[name]), figure(after[name])
            console.print(Text.assemble(f"held-out {name}: {old} → ", (new, "bold green"), ", 95 % intervals"))
    console.print(f"report  {outcome.folder / 'report.html'}", markup=False, highlight=False, soft_wrap=True)
    if (outcome.folder / "final").is_dir():
        console.print(f"chat    ikusei chat {outcome.folder}", markup=False, highlight=False, soft_wrap=True)
