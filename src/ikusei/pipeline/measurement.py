"""What a training run measures before and after: held-out answers, judged by the rewards, and held-out rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ikusei.guard.workers import RewardWorkers
from ikusei.loops.evaluate import EvalResult
from ikusei.loops.few_shot import evaluate_with_shots
from ikusei.loops.held_out import held_out, on_rankings, on_texts
from ikusei.loops.precompute import Before
from ikusei.loops.preference_gap import advice, preference_gap
from ikusei.loops.steps import StopAsked
from ikusei.recipe.build import Components
from ikusei.recipe.schema import Recipe
from ikusei.run.display import Display
from ikusei.run.folder import Run
from ikusei.types import Group


@dataclass(frozen=True)
class Measurement:
    """The evaluations of one run: made once each, and read again after a resume."""

    recipe: Recipe
    components: Components
    run: Run
    shown: Display
    stop: StopAsked

    def __call__(self, name: str, step: int, before: Before, workers: RewardWorkers | None) -> dict[str, Any]:
        """The evaluation `name` after `step`, by figure; {} where there is nothing to measure. Ctrl-C ends it at once: it is made again on
        resuming."""
        settings, policy = self.recipe.eval, self.components.policy
        if settings.num_prompts == 0:
            return {}
        results = self.run.read_eval(name, step)
        if results is None:
            found, rows = self._of_rows(step, before, workers), []
            if workers is not None and not policy.rewards:
                sampled = self._of_answers(name, workers)
                found, rows = found | sampled.results, sampled.rows
            if not found:
                return {}
            self.run.write_eval(name, step, {"name": name, "step": step, **found}, rows)
            results = self.run.read_eval(name, step)
            assert results is not None, "an evaluation that was just written"
        return {key: value for key, value in results.items() if isinstance(value, dict)}

    def held_out_rows(self) -> list[Group]:
        """Of data; none where answers are sampled."""
        return [] if self.recipe.loop.samples else self.components.rows.held_out_examples(self.recipe.eval.num_prompts)

    def _of_answers(self, name: str, workers: RewardWorkers) -> EvalResult:
        """What the policy writes to held-out prompts, judged by the rewards."""
        settings, recipe, rows = self.recipe.eval, self.recipe, self.components.eval_rows
        num_prompts = len(rows.held_out(settings.num_prompts))
        if num_prompts == 0:
            self.shown.say("nothing is sampled: the task holds no row out; give it more rows or a larger test_share")
            return EvalResult({}, [])
        fewer = f" ({settings.num_prompts} asked for; there are no other ones)" if num_prompts < settings.num_prompts else ""
        self.shown.say(f"measuring {name} training: {num_prompts} held-out prompts{fewer} × {settings.num_samples} answers")
        sampler = self.components.policy.snapshot()
        return evaluate_with_shots(sampler, rows, workers, settings, recipe.sampling, recipe.seed, self.stop)

    def _of_rows(self, step: int, before: Before, workers: RewardWorkers | None) -> dict[str, Any]:
        """What a supervised algorithm says of rows that it does not learn from, and of those that are replayed."""
        groups, recipe, policy = self.held_out_rows(), self.recipe, self.components.policy
        found: dict[str, Any] = {}
        if groups:
            self.shown.say(f"measuring on {len(groups)} held-out rows")
            found |= held_out(before, recipe.algorithm, groups)
            if policy.rewards:
                found |= on_rankings(before, groups)
            elif any(group.pairs for group in groups):
                gap = preference_gap(policy, groups, recipe.sampling, recipe.seed, recipe.train.tokens_per_microbatch, workers)
                advised = advice(gap) if step == 0 else None
                if advised is not None:
                    self.run.event("warning", step=step, text=advised)
                    self.shown.say(f"warning: {advised}")
                found |= gap
            elif all(group.responses[0].label is None for group in groups):
                found |= on_texts(before, groups)
        replay_rows = self.components.replay_rows
        replayed = replay_rows.held_out_examples(recipe.eval.num_prompts) if replay_rows else []
        return found | ({f"replay/{name}": each for name, each in on_texts(before, replayed).items()} if replayed else {})
