"""The watch during training: record alarms, evaluate the gold reward on held-out prompts every few steps, and act on the result.

Both read what the run has recorded, so after a kill they go on where they were. The checkpoint with the best gold reward is kept beside
the newest ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from ikusei.guard.watch import GOLD_IS_PAST, Alarm, Watch, samples
from ikusei.guard.workers import RewardWorkers
from ikusei.loops import few_shot
from ikusei.loops.evaluate import evaluate
from ikusei.loops.metrics import gold_of
from ikusei.loops.steps import Step, StopRequest
from ikusei.recipe.build import Components
from ikusei.recipe.schema import Recipe
from ikusei.run.display import Display
from ikusei.run.files import read_lines
from ikusei.run.folder import Run, checkpoints
from ikusei.run.read import GOLD


class GoldWatch:
    """Called by a training run after every step."""

    def __init__(self, recipe: Recipe, components: Components, run: Run) -> None:
        self.recipe, self.components, self.run = recipe, components, run
        self.golds = recipe.gold
        self.watch = Watch(components.rewards, recipe.watch)
        self.alarmed = False  # by a step of this process, and not before a resume

    def restore(self) -> None:
        """Read the recorded metrics and alarms, so that no alarm is raised twice."""
        events = [event for event in read_lines(self.run.path / "events.jsonl") if event["kind"] == "alarm"]
        alarms = [Alarm(**{name: event[name] for name in ("name", "step", "since", "text", "do")}) for event in events]
        self.watch.restore(read_lines(self.run.path / "metrics.jsonl"), alarms)

    def see(self, step: Step, metrics: Mapping[str, float], shown: Display) -> None:
        """Show and record the alarms of this step, with answers that illustrate them."""
        for alarm in self.watch.see(step.number, metrics):
            shown_samples = samples(alarm, step.groups) if "reward" in metrics else []
            rows = [
                {"prompt": g.prompt.text, "response": r.text, "total": r.total, "gold": gold_of(r, self.golds)} for g, r in shown_samples
            ]
            text = f"{alarm.text} (since step {alarm.since})"
            self.run.event("alarm", step=alarm.step, name=alarm.name, since=alarm.since, text=text, do=alarm.do, samples=rows)
            shown.say(f"alarm at step {alarm.step}, {alarm.name}: {text}", style="bold red")
            shown.say(f"      what to do: {alarm.do}")
            for each in rows:
                shown.say(f"      earned {_number(each['total'])}{_of_gold(each['gold'])}: {each['response'][:160]!r}")
            self.alarmed = True

    @property
    def pauses(self) -> bool:
        return self.alarmed and self.recipe.watch.action == "pause"

    @property
    def stops(self) -> bool:
        """Whether the run ends here for good, also after an alarm that was raised before a kill."""
        past = any(alarm.name in GOLD_IS_PAST for alarm in self.watch.alarms)
        return past and self.recipe.watch.action == "stop_at_best_gold"

    def due(self, step: int) -> bool:
        """Whether the gold reward is evaluated after this step. With stop_at_best_gold also at the start and at the end."""
        watch = self.recipe.watch
        wanted = self.stops or step == 0 if watch.action == "stop_at_best_gold" else False
        wanted = wanted or (step > 0 and watch.gold_every > 0 and step % watch.gold_every == 0)
        rows = self.recipe.eval_task.num_rows("test") != 0 and self.recipe.eval.num_prompts > 0
        return wanted and bool(self.golds) and rows and self.recipe.train.samples

    def measure(self, step: int, workers: RewardWorkers | None, shown: Display, stop: StopRequest) -> bool:
        """Evaluate the gold reward on held-out prompts, if it is due and not yet done. Returns whether it is higher than at every
        checkpoint. Ctrl-C ends the evaluation; a resumed run makes it again."""
        if workers is not None and self.due(step) and not self.run.read_eval(GOLD, step):
            with suppress(KeyboardInterrupt):
                self._measure(step, workers, shown, stop)
        return self._gold(step) > (-math.inf if self.best is None else self._gold(self.best))

    def _measure(self, step: int, workers: RewardWorkers, shown: Display, stop: StopRequest) -> None:
        settings = replace(self.recipe.eval, num_samples=self.recipe.watch.gold_samples, shots=(), greedy=False)
        prompts = few_shot.held_out(self.components.eval_rows, settings.num_prompts, 0, settings.form)
        result = evaluate(self.components.policy.snapshot(), prompts, workers, settings, self.recipe.sampling, self.recipe.seed, stop)
        self.run.write_eval(GOLD, step, {"name": GOLD, "step": step, **result.results}, result.rows)
        shown.say(f"after step {step} the gold on held-out prompts is {result.results['reward']}")

    def _gold(self, step: int) -> float:
        measured = self.run.read_eval(GOLD, step)
        return -math.inf if measured is None else measured["reward"]["value"]

    @property
    def best(self) -> int | None:
        """The step with the best held-out gold reward, the first of equals, among checkpoints that still exist and were evaluated."""
        steps = [step for step, _ in checkpoints(self.run.path) if self.run.read_eval(GOLD, step)]
        return max(steps, key=lambda step: (self._gold(step), -step), default=None)

    def go_back(self, shown: Display) -> int:
        """Load the checkpoint with the best gold reward; returns its step."""
        best = self.best
        assert best is not None, "measured after the step that raised the alarm, if not before"
        self.components.policy.load(self.run.path / f"checkpoint-{best}")
        text = f"the watch ended the run; it leaves the model after step {best}, whose gold on held-out prompts was best"
        self.run.event("warning", step=best, text=text)
        shown.say(text)
        return best


def _number(value: float | None) -> str:
    return "nothing, its reward failed" if value is None else f"{value:.3g}"


def _of_gold(value: float | None) -> str:
    return "" if value is None else f", by the gold {value:.3g}"
