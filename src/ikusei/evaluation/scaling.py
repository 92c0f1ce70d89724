"""How accuracy grows with the tokens that are spent on an answer: every test-time method (search/), on a recipe's held-out prompts.

    one        a single answer                          pass@n     one of n is right: no choice among n can do better
    pooled     those that choose among independent answers share one pool of them: at n the estimate over its subsets
               (eval_metrics/choosing.py), which costs n times the mean answer
    run        every other method is run, with what it spent

What judges is what the recipe calls gold. What guides is what it trains on beside, or a reward model that is named as the proxy. Where
there is neither, the methods that need a guide are left out: guided by the judge they would be told what is right. The frontier is what no
cheaper point reaches, by the points themselves and not by their intervals.

Left out: the cost of reading, by the model that goes on from what stands there and by the proxy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from ikusei.eval_metrics.choosing import Chooser, best_right_at, right_at
from ikusei.guard.outcomes import LEARNED, RewardSpec, too_many_failures
from ikusei.guard.workers import RewardWorkers
from ikusei.intervals import doublings, mean_interval, pass_at_k
from ikusei.loops import few_shot
from ikusei.loops.evaluate import EvalSettings, judgement
from ikusei.recipe.build import build
from ikusei.recipe.find import find_recipe
from ikusei.recipe.schema import Recipe, read_recipe
from ikusei.recipe.stages import has_stages
from ikusei.report.frontier import Point, draw
from ikusei.report.svg import standalone
from ikusei.run.find import find_model
from ikusei.samplers.continuation import Writer
from ikusei.search.best_of_n import BestOfN, rewards
from ikusei.search.method import Guide, MethodSpec, squashed
from ikusei.search.methods import build as build_method
from ikusei.search.methods import current, registry
from ikusei.search.repeated import RepeatedSampling
from ikusei.types import Group, Prompt, Response

REPEATS = 16  # a method of n answers is run 16 / n times for each prompt, at least once


@dataclass(frozen=True)
class ScaleSettings:
    """`most` answers at most, `methods` by name (none: all that can be, but the slow ones). A step of beam or dvts ends with `step`."""

    most: int = 64
    methods: tuple[str, ...] = ()
    step: str = "\n"

    def __post_init__(self) -> None:
        unknown = set(map(current, self.methods)) - set(registry())
        if self.most < 2 or unknown or not self.step:
            raise ValueError(
                f"scale: got max={self.most}, methods={','.join(self.methods)}, step={self.step!r}; allowed: 2 or more, of "
                f"{', '.join(registry())}, a text"
            )


@dataclass(frozen=True)
class Scaling:
    """The result. `points` are the methods at each size; `bound` is pass@n, beginning with n = 1."""

    points: tuple[Point, ...]
    bound: tuple[Point, ...]
    facts: dict[str, Any]


@dataclass(frozen=True)
class ScalingSetup:
    """Everything that a measurement needs: the model, the prompts, the judge and the guide."""

    writer: Writer
    prompts: list[Prompt]
    workers: RewardWorkers
    guide: Guide | None
    settings: EvalSettings

    def judged(self, groups: Sequence[Group]) -> list[tuple[Group, list[bool]]]:
        """The judged responses, and whether each is right. A reward that failed says nothing: prompts without a judged one are left out."""
        problem = too_many_failures(groups)
        if problem:
            raise ValueError(problem)
        gold = [spec.name for spec in self.workers.specs if spec.gold]
        rows = [(group, [(r, value) for r in group.responses if (value := judgement(r, gold)) is not None]) for group in groups]
        return [
            (replace(group, responses=tuple(r for r, _ in row)), [self.settings.passes(value) for _, value in row])
            for group, row in rows
            if row
        ]


def measure(recipe: Path, overrides: Sequence[str] = (), proxy: str | None = None, settings: ScaleSettings | None = None) -> Scaling:
    """The recipe's model on its held-out prompts. Raises ValueError where there is nothing to measure, or a method has no guide."""
    settings, read = settings or ScaleSettings(), _read(recipe, overrides, proxy)
    components = build(read)
    sampler = components.policy.snapshot()
    guided = any(spec.gold for spec in components.rewards)
    specs = _possible(settings, guided, bool(sampler.tokenizer.chat_template))
    with components.workers() as workers:
        learned = any(spec.learned and not spec.gold for spec in components.rewards)
        guide = squashed(workers.score) if learned or any("weights" in spec.needs for spec in specs) else workers.score
        prompts = few_shot.held_out(components.eval_rows, read.eval.num_prompts, 0, read.eval.form)
        writer = Writer(sampler, read.sampling, read.seed)
        setup = ScalingSetup(writer, prompts, workers, guide if guided else None, read.eval)
        return _measure(setup, specs, settings, str(read.model))


def _possible(settings: ScaleSettings, guided: bool, takes_turns: bool) -> list[MethodSpec]:
    """The methods that are asked for, or all that can be run. Raises ValueError where one that is asked for cannot."""
    specs = [registry()[current(name)] for name in settings.methods] or [spec for spec in registry().values() if not spec.slow]
    possible = [spec for spec in specs if (guided or "guide" not in spec.needs) and (takes_turns or "turns" not in spec.needs)]
    if not settings.methods or possible == specs:
        return possible
    unguided = sorted(spec.name for spec in specs if "guide" in spec.needs and not guided)
    if unguided:
        raise ValueError(
            f"scale: {', '.join(unguided)} need a guide that is not the judge; give --proxy REWARD_MODEL, or mark the judge `gold: true` "
            "in the recipe, beside a reward that guides"
        )
    turned = ", ".join(spec.name for spec in specs if "turns" in spec.needs)
    raise ValueError(f"scale: {turned} asks in a further turn, and the tokenizer has no chat template; leave it out of --methods")


def picture(scaling: Scaling) -> str:
    """Accuracy over tokens, as an SVG file of its own."""
    return standalone(draw(scaling.points, scaling.bound))


def _read(path: Path, overrides: Sequence[str], proxy: str | None) -> Recipe:
    path = find_recipe(path)
    if has_stages(path):
        raise ValueError(f"{path}: a recipe of stages; scale measures one model: give a recipe of one stage, with model=runs/<this run>")
    recipe = read_recipe(path, overrides)
    specs = recipe.reward_specs
    if proxy is not None:
        gold = [spec for spec in specs if spec.gold] or list(specs)
        if len(gold) > 1 and not gold[0].gold:
            names = ", ".join(spec.name for spec in gold)
            raise ValueError(f"{path}: --proxy, and several rewards that may judge: {names}; mark the one that does as `gold: true`")
        judges = [replace(spec, gold=True, weight=1.0, gate=False) for spec in gold]
        specs = (RewardSpec("proxy", LEARNED, settings={"model": find_model(proxy)}), *judges)
    if not specs or recipe.eval.num_prompts == 0:
        raise ValueError(f"{path}: nothing to measure: {len(specs)} rewards, eval.num_prompts {recipe.eval.num_prompts}; give both")
    return replace(recipe, rewards=specs, model=find_model(recipe.model) if isinstance(recipe.model, str) else recipe.model)


def _measure(setup: ScalingSetup, specs: Sequence[MethodSpec], settings: ScaleSettings, model: str) -> Scaling:
    """One pool of answers for pass@n and for the pooled methods; then each other method, run at each of its sizes."""
    pool = RepeatedSampling(settings.most).run(setup.writer, setup.prompts, setup.guide or setup.workers.score)
    groups = [Group(prompt, result.responses) for prompt, result in zip(setup.prompts, pool, strict=True)]
    judged = setup.judged(groups)
    mean_tokens = fmean(result.tokens / settings.most for result in pool)  # of one answer
    sizes = doublings(min(len(right) for _, right in judged))
    bound = [_point("pass@n", n, n * mean_tokens, [pass_at_k(len(right), sum(right), n) for _, right in judged]) for n in sizes]

    points = [replace(bound[0], method="one")]
    for spec in specs:
        if spec.chooser is not None:
            for n in sizes[1:]:
                accuracies = [_accuracy(spec.chooser, group.responses, right, n) for group, right in judged]
                points.append(_point(spec.name, n, n * mean_tokens, accuracies))
    responses = [response for group in groups for response in group.responses]
    longest = max(len(response.tokens) for response in responses)
    for spec in specs:
        if spec.chooser is None:
            points += [_run(setup, spec, n, settings.step) for n in _sizes(spec, settings.most, longest)]

    reward_specs = setup.workers.specs
    facts = {
        "model": model,
        "num_prompts": len(groups),
        "judge": ", ".join(reward.name for reward in reward_specs if reward.gold or not setup.guide),
        "guide": ", ".join(reward.name for reward in reward_specs if not reward.gold) if setup.guide else None,
        "with_steps": fmean(settings.step in response.text for response in responses),
        "mean_length": mean_tokens,
    }
    return Scaling(tuple(on_frontier(points)), tuple(bound), facts)


def _accuracy(chooser: Chooser, responses: Sequence[Response], right: Sequence[bool], n: int) -> float:
    """How often the chooser is right among n of the responses; exact for best of n."""
    if isinstance(chooser, BestOfN):
        return best_right_at(rewards(responses), right, n)
    return right_at(chooser, responses, right, n)


def _sizes(spec: MethodSpec, most: int, longest: int) -> list[int]:
    """The powers of two to run a method at: `most` answers, extensions by its own limit, tokens up to the longest response."""
    largest = {"answers": most, "extensions": spec.most or most, "tokens": longest}[spec.unit]
    return [n for n in doublings(largest) if spec.least <= n <= (spec.most or largest)]


def _run(setup: ScalingSetup, spec: MethodSpec, n: int, step: str) -> Point:
    repeats = max(1, REPEATS // (n if spec.unit == "answers" else 1))
    prompts = [prompt for prompt in setup.prompts for _ in range(repeats)]
    results = build_method(spec, n, step).run(setup.writer, prompts, setup.guide)
    rows = [results[begin : begin + repeats] for begin in range(0, len(results), repeats)]
    groups = [Group(prompt, tuple(each.chosen for each in row)) for prompt, row in zip(setup.prompts, rows, strict=True)]
    judged = setup.judged(setup.workers.score(groups))
    return _point(spec.name, n, fmean(each.tokens for each in results), [fmean(right) for _, right in judged])


def _point(method: str, n: int, tokens: float, values: Sequence[float]) -> Point:
    """From one value a prompt."""
    interval = mean_interval(values)
    return Point(method, n, tokens, interval.value, interval.low, interval.high)


def on_frontier(points: Sequence[Point]) -> list[Point]:
    """The points, those marked that no point of as many tokens or fewer reaches."""
    best, kept = -math.inf, set[int]()
    for i in sorted(range(len(points)), key=lambda i: (points[i].tokens, -points[i].value)):
        if points[i].value > best:
            best = points[i].value
            kept.add(i)
    return [replace(point, frontier=i in kept) for i, point in enumerate(points)]
