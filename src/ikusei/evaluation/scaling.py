"""How accuracy grows with the tokens that are spent on an answer: every way to think (search/), on a recipe's held-out prompts.

    one        a single answer                          pass@n     one of n is right: no way to choose among n can do better
    pooled     vote, best_of_n, weighted_vote, mbr      choose among independent answers, and share one pool of them: at n the estimate over
                                                        its subsets (search/choosing.py), which costs n times the mean answer
    run        rounds, revision, stretch, cut, beam, dvts      each carried out, with what it spent

What judges is what the recipe calls gold. What guides is what it trains on beside, or a reward model that is named as the proxy. Where
there is neither, the ways that need a guide are left out: guided by the judge they would be told what is right. The frontier is what no
cheaper point reaches, by the points themselves and not by their intervals.

Left out: the cost of reading, by the model that goes on from what stands there and by the proxy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from ikusei.guard.outcomes import RewardSpec, too_many_failures
from ikusei.guard.workers import RewardWorkers
from ikusei.intervals import doublings, mean_interval, pass_at_k
from ikusei.loops import few_shot
from ikusei.loops.evaluate import EvalSettings, judgement
from ikusei.recipe.build import LEARNED, build, rewards_of
from ikusei.recipe.schema import Recipe, read_recipe
from ikusei.recipe.stages import is_road
from ikusei.report.frontier import Point, draw
from ikusei.report.plots import standalone
from ikusei.run.find import find_model
from ikusei.samplers.continuation import Writer
from ikusei.search.beam import Beam
from ikusei.search.best_of_n import BestOfN, rewards
from ikusei.search.budget import Budget
from ikusei.search.choosing import Chooser, best_right_at, right_at
from ikusei.search.drawn import Drawn, VoteInRounds
from ikusei.search.mbr import MBR
from ikusei.search.revision import Revision
from ikusei.search.thinker import Found, Guide, Thinker, squashed
from ikusei.search.vote import Vote
from ikusei.types import Group, Prompt, Response

POOLED: dict[str, Chooser] = {"vote": Vote(), "best_of_n": BestOfN(), "weighted_vote": Vote(weighted=True), "mbr": MBR()}
RUN = ("rounds", "revision", "stretch", "cut", "beam", "dvts")
GUIDED = frozenset({"best_of_n", "weighted_vote", "beam", "dvts"})
SLOW = frozenset({"mbr"})  # only where it is asked for
REPEATS = 16  # a way of n is carried out 16 / n times for each prompt, at least once


@dataclass(frozen=True)
class ScaleSettings:
    """`most` answers at most, `ways` by name (none: all that can be, but mbr, which is slow). A step of beam and dvts ends with `step`."""

    most: int = 64
    ways: tuple[str, ...] = ()
    step: str = "\n"

    def __post_init__(self) -> None:
        unknown = set(self.ways) - {*POOLED, *RUN}
        if self.most < 2 or unknown or not self.step:
            raise ValueError(
                f"scale: got max={self.most}, ways={','.join(self.ways)}, step={self.step!r}; allowed: 2 or more, of "
                f"{', '.join((*POOLED, *RUN))}, a text"
            )


@dataclass(frozen=True)
class Scaling:
    """`bound` is pass@n, of which the first is one answer."""

    points: tuple[Point, ...]
    bound: tuple[Point, ...]
    facts: dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """What is measured with: each prompt's answers are right or not, by the judge."""

    writer: Writer
    prompts: list[Prompt]
    workers: RewardWorkers
    guide: Guide | None
    settings: EvalSettings

    def known(self, groups: Sequence[Group]) -> list[tuple[Group, list[bool]]]:
        """The judged responses, and whether each is right. A reward that failed says nothing: prompts without a judged one are left out."""
        problem = too_many_failures(groups)
        if problem:
            raise ValueError(problem)
        gold = [spec.name for spec in self.workers.specs if spec.gold]
        judged = [(group, [(r, value) for r in group.responses if (value := judgement(r, gold)) is not None]) for group in groups]
        return [
            (replace(group, responses=tuple(r for r, _ in row)), [self.settings.passes(value) for _, value in row])
            for group, row in judged
            if row
        ]


def measure(recipe: Path, overrides: Sequence[str] = (), proxy: str | None = None, settings: ScaleSettings | None = None) -> Scaling:
    """The recipe's model on its held-out prompts. Raises ValueError where there is nothing to measure, or a way has no guide."""
    settings, read = settings or ScaleSettings(), _read(recipe, overrides, proxy)
    parts = build(read)
    guided = any(spec.gold for spec in parts.rewards)
    lacking = sorted(GUIDED & set(settings.ways))
    if lacking and not guided:
        raise ValueError(
            f"scale: {', '.join(lacking)} need a guide that is not the judge; give --proxy REWARD_MODEL, or mark the judge `gold: true` "
            "in the recipe, beside a reward that guides"
        )
    ways = settings.ways or tuple(way for way in (*POOLED, *RUN) if way not in SLOW and (guided or way not in GUIDED))
    policy = parts.policy
    if not policy.tokenizer.chat_template:
        if "revision" in settings.ways:
            raise ValueError("scale: revision asks in a further turn, and the tokenizer has no chat template; leave it out of --ways")
        ways = tuple(way for way in ways if way != "revision")
    writer = Writer(policy.snapshot(), policy.tokenizer, read.sampling, read.seed, policy.causal.context)
    with parts.workers() as workers:
        learned = any(spec.path == LEARNED and not spec.gold for spec in parts.rewards)
        guide = squashed(workers.score) if learned or "weighted_vote" in ways else workers.score
        prompts = few_shot.held_out(parts.eval_rows, read.eval.num_prompts, 0, read.eval.form)
        bench = Bench(writer, prompts, workers, guide if guided else None, read.eval)
        return _measured(bench, ways, settings, str(read.model))


def picture(scaling: Scaling) -> str:
    """Accuracy over tokens, as an SVG file of its own."""
    return standalone(draw(scaling.points, scaling.bound))


def _read(path: Path, overrides: Sequence[str], proxy: str | None) -> Recipe:
    if is_road(path):
        raise ValueError(f"{path}: a recipe of stages; scale measures one model: give a recipe of one stage, with model=runs/<this run>")
    recipe = read_recipe(path, overrides)
    specs = rewards_of(recipe)
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


def _measured(bench: Bench, ways: Sequence[str], settings: ScaleSettings, model: str) -> Scaling:
    score = bench.guide or bench.workers.score
    pool = Drawn(settings.most).think(bench.writer, bench.prompts, score)
    groups = [Group(prompt, found.responses) for prompt, found in zip(bench.prompts, pool, strict=True)]
    known, length = bench.known(groups), fmean(found.tokens / settings.most for found in pool)
    ns = doublings(min(len(right) for _, right in known))
    bound = [_point("pass@n", n, n * length, [pass_at_k(len(right), sum(right), n) for _, right in known]) for n in ns]
    points = [replace(bound[0], way="one")]
    for way in [way for way in ways if way in POOLED]:
        points += [_point(way, n, n * length, [_pooled(way, group.responses, right, n) for group, right in known])
                   for n in ns[1:]]  # fmt: skip
    longest = max(len(response.tokens) for group in groups for response in group.responses)
    for way in [way for way in ways if way in RUN]:
        points += [_carried_out(bench, way, n, thinker) for n, thinker in _thinkers(way, settings, longest)]
    said = [response for group in groups for response in group.responses]
    facts = {
        "model": model,
        "num_prompts": len(groups),
        "judge": ", ".join(spec.name for spec in bench.workers.specs if spec.gold or not bench.guide),
        "guide": ", ".join(spec.name for spec in bench.workers.specs if not spec.gold) if bench.guide else None,
        "with_steps": fmean(settings.step in response.text for response in said),
        "mean_length": length,
    }
    return Scaling(tuple(on_frontier(points)), tuple(bound), facts)


def _pooled(way: str, responses: Sequence[Response], right: Sequence[bool], n: int) -> float:
    if way == "best_of_n":
        return best_right_at(rewards(responses), right, n)
    return right_at(POOLED[way], responses, right, n)


def _thinkers(way: str, settings: ScaleSettings, longest: int) -> list[tuple[int, Thinker]]:
    """The ways to carry out, by n: of `cut` the budget, of `stretch` how often."""
    ns, step = doublings(settings.most)[1:], (settings.step,)
    made: dict[str, Callable[[], list[tuple[int, Thinker]]]] = {
        "rounds": lambda: [(n, VoteInRounds(n)) for n in ns if n > 4],
        "revision": lambda: [(n, Revision(n)) for n in ns if n <= 4],
        "stretch": lambda: [(n, Budget(stretches=n)) for n in (1, 2, 4)],
        "cut": lambda: [(n, Budget(n)) for n in doublings(longest)[2:]],
        "beam": lambda: [(n, Beam(n, min(n, 4), stop=step)) for n in ns if n >= 4],
        "dvts": lambda: [(n, Beam(n, 4, diverse=True, stop=step)) for n in ns if n >= 8],
    }
    return made[way]()


def _carried_out(bench: Bench, way: str, n: int, thinker: Thinker) -> Point:
    repeats = max(1, REPEATS // (1 if way in ("cut", "stretch") else n))
    found: list[Found] = thinker.think(bench.writer, [prompt for prompt in bench.prompts for _ in range(repeats)], bench.guide)
    rows = [found[begin : begin + repeats] for begin in range(0, len(found), repeats)]
    groups = [Group(prompt, tuple(each.chosen for each in row)) for prompt, row in zip(bench.prompts, rows, strict=True)]
    known = bench.known(bench.workers.score(groups))
    return _point(way, n, fmean(each.tokens for each in found), [fmean(right) for _, right in known])


def _point(way: str, n: int, tokens: float, values: Sequence[float]) -> Point:
    """From one value a prompt."""
    interval = mean_interval(values)
    return Point(way, n, tokens, interval.value, interval.low, interval.high)


def on_frontier(points: Sequence[Point]) -> list[Point]:
    """The points, those marked that no point of as many tokens or fewer reaches."""
    best, kept = -math.inf, set[int]()
    for i in sorted(range(len(points)), key=lambda i: (points[i].tokens, -points[i].value)):
        if points[i].value > best:
            best = points[i].value
            kept.add(i)
    return [replace(point, frontier=i in kept) for i, point in enumerate(points)]
