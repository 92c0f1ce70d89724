"""A run under watch: alarms into the record, the gold on held-out prompts every few steps, and what follows.

The watch reads the run's recorded metrics and the gold its evaluations, so after a kill both go on where they were. The checkpoint whose
gold is best is kept beside the newest ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace

from ikusei.guard.watch import GOLD_IS_PAST, Watch, samples
from ikusei.guard.workers import RewardWorkers
from ikusei.loops.evaluate import evaluate
from ikusei.loops.measure import gold_of
from ikusei.loops.steps import Step, StopAsked
from ikusei.loops.supervised import SupervisedSettings
from ikusei.models.causal import CausalModel
from ikusei.outcome import figure
from ikusei.parts import Parts
from ikusei.recipe import Recipe
from ikusei.run.display import Display
from ikusei.run.files import read_lines
from ikusei.run.folder import Run, checkpoints

GOLD = "gold"  # the name of its evaluations


class Watching:
    """What a journey asks at every step."""

    def __init__(self, recipe: Recipe, parts: Parts, run: Run) -> None:
        self.recipe, self.parts, self.run = recipe, parts, run
        self.golds = [spec.name for spec in parts.rewards if spec.gold]
        self.watch = Watch(parts.rewards, recipe.watch)
        self.supervised = isinstance(recipe.train, SupervisedSettings)
        self.alarmed = False  # by a step of this process, and not before a resume

    def take_up(self) -> None:
        """The steps that are recorded, seen again: what they raised is known and is not told twice."""
        for row in read_lines(self.run.path / "metrics.jsonl"):
            self.watch.see(row["step"], row)

    def see(self, step: Step, metrics: Mapping[str, float], shown: Display) -> None:
        """Tells and records what this step raises, with the answers that show it."""
        for alarm in self.watch.see(step.number, metrics):
            found = samples(alarm, step.groups) if "reward" in metrics else []
            told = [{"prompt": g.prompt.text, "response": r.text, "total": r.total, "gold": gold_of(r, self.golds)} for g, r in found]
            text = f"{alarm.text} (since step {alarm.since})"
            self.run.event("alarm", step=alarm.step, name=alarm.name, since=alarm.since, text=text, do=alarm.do, samples=told)
            shown.say(f"alarm at step {alarm.step}, {alarm.name}: {text}", style="bold red")
            shown.say(f"      what to do: {alarm.do}")
            for each in told:
                shown.say(f"      earned {_number(each['total'])}{_of_gold(each['gold'])}: {each['response'][:160]!r}")
            self.alarmed = True

    @property
    def pauses(self) -> bool:
        return self.alarmed and self.recipe.watch.action == "pause"

    @property
    def stops(self) -> bool:
        """For good: also where the alarm was raised before a kill."""
        past = any(alarm.name in GOLD_IS_PAST for alarm in self.watch.alarms)
        return past and self.recipe.watch.action == "stop_at_best_gold"

    def due(self, step: int) -> bool:
        """Is the gold measured after this step?"""
        watch = self.recipe.watch
        wanted = step > 0 and ((watch.gold_every > 0 and step % watch.gold_every == 0) or self.stops)
        samples_answers = not self.supervised and isinstance(self.parts.policy.causal, CausalModel)
        return wanted and bool(self.golds) and self.recipe.eval.num_prompts > 0 and samples_answers

    def measure(self, step: int, workers: RewardWorkers | None, shown: Display, stop: StopAsked) -> None:
        """The gold on held-out prompts after this step, where it is due and was not measured yet."""
        if workers is None or not self.due(step) or self.run.read_eval(GOLD, step):
            return
        settings = replace(self.recipe.eval, num_samples=self.recipe.watch.gold_samples, shots=())
        prompts = self.parts.eval_rows.held_out(settings.num_prompts)
        found = evaluate(self.parts.policy.snapshot(), prompts, workers, settings, self.recipe.sampling, self.recipe.seed, stop).results
        self.run.write_eval(GOLD, step, {"name": GOLD, "step": step, **found}, [])
        shown.say(f"after step {step} the gold on held-out prompts is {figure(asdict(found['reward']))}")

    @property
    def best(self) -> int | None:
        """The step whose held-out gold is best, the first of equals, among those whose checkpoint is there."""
        measured = {step: self.run.read_eval(GOLD, step) for step, _ in checkpoints(self.run.path)}
        values = {step: results["reward"]["value"] for step, results in measured.items() if results}
        return max(values, key=lambda step: (values[step], -step), default=None)

    def go_back(self, shown: Display) -> int:
        """The policy becomes that of the best gold; returns its step."""
        best = self.best
        assert best is not None, "measured after the step that raised the alarm, if not before"
        self.parts.policy.load(self.run.path / f"checkpoint-{best}")
        text = f"the watch ended the run; it leaves the model after step {best}, whose gold on held-out prompts was best"
        self.run.event("warning", step=best, text=text)
        shown.say(text)
        return best


def _number(value: float | None) -> str:
    return "nothing, its reward failed" if value is None else f"{value:.3g}"


def _of_gold(value: float | None) -> str:
    return "" if value is None else f", by the gold {value:.3g}"
