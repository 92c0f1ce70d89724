"""A training run's evaluations, before and after: sampled answers to held-out prompts, scored by the rewards, and held-out rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ikusei.guard.workers import RewardWorkers
from ikusei.loops.evaluate import EvalResult
from ikusei.loops.few_shot import evaluate_with_shots
from ikusei.loops.held_out import held_out, on_rankings, on_texts
from ikusei.loops.precompute import Precompute
from ikusei.loops.preference_gap import advice, preference_gap
from ikusei.loops.steps import StopRequest
from ikusei.recipe.build import Components
from ikusei.recipe.schema import Recipe
from ikusei.run.display import Display
from ikusei.run.folder import Run
from ikusei.types import Group


@dataclass(frozen=True)
class Evaluator:
    """The evaluations of one run: each is made once, and read back after a resume."""

    recipe: Recipe
    components: Components
    run: Run
    shown: Display
    stop: StopRequest

    def __call__(self, name: str, step: int, precompute: Precompute, workers: RewardWorkers | None) -> dict[str, Any]:
        """The evaluation `name` after `step`, as {figure: values}; {} where there is nothing to measure. Ctrl-C ends it at once; a resumed
        run makes it again."""
        settings, policy = self.recipe.eval, self.components.policy
        if settings.num_prompts == 0:
            return {}
        results = self.run.read_eval(name, step)
        if results is None:
            figures, rows = self._of_rows(step, precompute, workers), []
            if workers is not None and not policy.rewards:
                sampled = self._of_answers(name, workers)
                figures, rows = figures | sampled.results, sampled.rows
            if not figures:
                return {}
            self.run.write_eval(name, step, {"name": name, "step": step, **figures}, rows)
            results = self.run.read_eval(name, step)
            assert results is not None, "an evaluation that was just written"
        return {key: value for key, value in results.items() if isinstance(value, dict)}

    def held_out_rows(self) -> list[Group]:
        """Held-out rows of data; [] where answers are sampled."""
        return [] if self.recipe.loop.samples else self.components.rows.held_out_examples(self.recipe.eval.num_prompts)

    def _of_answers(self, name: str, workers: RewardWorkers) -> EvalResult:
        """The policy's responses to held-out prompts, scored by the rewards."""
        settings, recipe, rows = self.recipe.eval, self.recipe, self.components.eval_rows
        num_prompts = len(rows.held_out(settings.num_prompts))
        if num_prompts == 0:
            self.shown.say("nothing is sampled: the task holds no row out; give it more rows or a larger test_share")
            return EvalResult({}, [])
        fewer = f" ({settings.num_prompts} asked for; there are no other ones)" if num_prompts < settings.num_prompts else ""
        self.shown.say(f"measuring {name} training: {num_prompts} held-out prompts{fewer} × {settings.num_samples} answers")
        sampler = self.components.policy.snapshot()
        return evaluate_with_shots(sampler, rows, workers, settings, recipe.sampling, recipe.seed, self.stop)

    def _of_rows(self, step: int, precompute: Precompute, workers: RewardWorkers | None) -> dict[str, Any]:
        """A supervised algorithm's loss and metrics on held-out rows, and on held-out rows of the replay task."""
        groups, recipe, policy = self.held_out_rows(), self.recipe, self.components.policy
        figures: dict[str, Any] = {}
        if groups:
            self.shown.say(f"measuring on {len(groups)} held-out rows")
            figures |= held_out(precompute, recipe.algorithm, groups)
            if policy.rewards:
                figures |= on_rankings(precompute, groups)
            elif any(group.pairs for group in groups):
                gap = preference_gap(policy, groups, recipe.sampling, recipe.seed, recipe.train.tokens_per_microbatch, workers)
                advised = advice(gap) if step == 0 else None
                if advised is not None:
                    self.run.event("warning", step=step, text=advised)
                    self.shown.say(f"warning: {advised}")
                figures |= gap
            elif all(group.responses[0].label is None for group in groups):
                figures |= on_texts(precompute, groups)
        replay_rows = self.components.replay_rows
        replayed = replay_rows.held_out_examples(recipe.eval.num_prompts) if replay_rows else []
        return figures | ({f"replay/{name}": each for name, each in on_texts(precompute, replayed).items()} if replayed else {})
