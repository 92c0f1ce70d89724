"""Before a run: is the recipe right, does the data fit the model, what do the rewards say of real answers, will it fit in memory?

Nothing is trained, and nothing is written unless it is asked for (advising.py). What it finds is one record, `Check`, shown by `show` or
printed as JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ikusei.guard.outcomes import too_many_failures
from ikusei.guard.workers import RewardWorkers
from ikusei.loops.order import in_order
from ikusei.preflight import advice as advising
from ikusei.preflight.facts import ANSWERS, data_told, earned_told, goes_with_told, memory_told, pairs_told, readiness_told
from ikusei.preflight.readiness import Verdict, readiness, verdict
from ikusei.recipe.build import Components, build
from ikusei.recipe.find import find_recipe
from ikusei.recipe.schema import Recipe, document_of, read_recipe
from ikusei.recipe.stages import Stage, has_stages, prove, read_stages
from ikusei.text.answer import split_thought
from ikusei.text.chat import continuation
from ikusei.types import Group, Prompt, Response

SHOWN = 3  # prompts whose answers are shown


@dataclass(frozen=True)
class Answer:
    """One real answer and what the rewards said of it."""

    prompt: str
    response: str
    total: float | None
    parts: dict[str, str]


@dataclass(frozen=True)
class Check:
    """What was found. `problems` must be mended before training; `warnings` are worth knowing."""

    facts: dict[str, str]
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    tokens: list[list[tuple[str, bool]]] = field(default_factory=list)  # the first row, each of its responses token by token after the
    # prompt: the token's text and whether it is scored
    verdict: Verdict | None = None  # of a recipe that learns from a reward
    written: list[str] = field(default_factory=list)  # files that were asked for

    @property
    def ready(self) -> bool:
        return not self.problems

    def plain(self) -> dict[str, Any]:
        return {**asdict(self), "ready": self.ready}


def check_file(path: Path, overrides: Sequence[str] = (), files: Path | None = None) -> Check:
    """A recipe, of stages or of one. Of stages the first is tried whole, and of the others what does not wait for it. What the verdict
    recommends goes into the new folder `files`, where it is given."""
    path = find_recipe(path)
    if not has_stages(path):
        recipe = read_recipe(path, overrides)
        if files is not None:
            advising.prove(recipe, files)
        found = check(recipe)
        return found if files is None else replace(found, written=advising.write(recipe, found.verdict, files))
    if files is not None:
        raise ValueError(f"{path}: a recipe of stages; --write is for a recipe of one stage")
    stages = read_stages(document_of(path), overrides)
    for stage in stages[1:]:
        prove(stage, stages)
    found = check(stages[0].recipe())
    return replace(found, facts={"stage": f"1 of {len(stages)}: {stages[0].name}", **found.facts, **dict(map(_later, stages[1:]))})


def _later(stage: Stage) -> tuple[str, str]:
    """What can be said of a stage before those before it have run."""
    takes = ", ".join(dict.fromkeys(f"{'.'.join(key)} from {name}" for key, name in stage.takes))
    told = f"{stage.name}: read and tried" + (f", but for what it takes from earlier stages: {takes}" if takes else "")
    return f"stage {stage.number}", told


def check(recipe: Recipe) -> Check:
    """Try everything that a run needs. Raises ValueError where the recipe's parts cannot even be loaded."""
    parts = build(recipe)
    facts = {"model": f"{parts.policy.size.parameters:,} parameters, {recipe.policy.precision}; {parts.policy.description}"}
    facts |= {"data": data_told(recipe, parts), "memory": memory_told(recipe, parts)}
    if not recipe.loop.samples:
        told, warnings = pairs_told(recipe, parts)
        return Check(facts | told, warnings=warnings, tokens=_tokens(parts, parts.rows.examples(0, 1)[0]))
    with parts.workers() as workers:
        gold = _gold(parts, workers)
        if recipe.train is None:
            groups, forecast = _answered(recipe, parts, workers), None
        else:
            sampler = parts.policy.snapshot()
            found = readiness(sampler, parts.rows, parts.eval_rows, workers, recipe.train, recipe.sampling, recipe.eval)
            groups, forecast = list(found.groups), verdict(found, recipe.train)
            facts |= readiness_told(found)
    facts["rewards"] = earned_told(groups, forecast is not None) + (f"; {gold}" if gold else "") + goes_with_told(groups, parts)
    problem = too_many_failures(groups, *([] if recipe.train is None else [recipe.train.max_failures]))
    answers = [_answer(group.prompt, response) for group in groups[:SHOWN] for response in group.responses[:2]]
    some = too_many_failures(groups, 0.0)
    warnings = ([some] if some and not problem else []) + _warnings(groups, forecast is not None)
    return Check(facts, [problem] if problem else [], warnings, answers, _tokens(parts, groups[0]), forecast)


def show(found: Check, console: Console) -> None:
    """For a person."""
    for name, fact in found.facts.items():
        console.print(f"[bold]{name:10}[/]", end="")
        console.print(fact, markup=False, highlight=False, soft_wrap=True)
    if found.tokens:
        console.print("\n[bold]the first row, as tokens[/] ([green]scored[/] and [dim]not scored[/])")
    for response in found.tokens:
        console.print(Text.assemble(*[(piece, "green" if scored else "dim") for piece, scored in response]))
    if found.answers:
        table = Table("prompt", "answer", "total", "rewards", title="\nreal answers and what they earn", title_justify="left", box=None)
        for answer in found.answers:
            total = "none" if answer.total is None else f"{answer.total:.3g}"
            told = ", ".join(f"{name} {value}" for name, value in answer.parts.items())
            table.add_row(Text(answer.prompt[-60:]), Text(answer.response[:160]), total, Text(told))
        console.print(table)
    for style, word, lines in (("yellow", "warning", found.warnings), ("bold red", "problem", found.problems)):
        for line in lines:
            console.print(Text.assemble(("\n" + word + ": ", style), line))
    console.print("\n[bold green]ready to train[/]" if found.ready else "\n[bold red]not ready[/]")
    if found.verdict is not None:
        style = "bold green" if found.verdict.name == "ready" else "bold yellow"
        told = Text.assemble("will it learn?  ", (found.verdict.name, style), f"  {found.verdict.why}")
        console.print(told.append(f"\n          next  {found.verdict.next}"), soft_wrap=True)
    for line in found.written:
        console.print(Text.assemble(("wrote  ", "bold"), line), soft_wrap=True)


def _answered(recipe: Recipe, parts: Components, workers: RewardWorkers) -> list[Group]:
    prompts = parts.rows.prompts(0, recipe.loop.prompts_per_step)
    groups = parts.policy.snapshot().sample(prompts, ANSWERS, recipe.sampling, recipe.seed)
    return in_order(prompts, workers.score(groups))


def _gold(parts: Components, workers: RewardWorkers) -> str:
    """What the rewards say of the gold answers, where the data has some."""
    prompts = [prompt for prompt in parts.rows.prompts(0, 16) if "answer" in prompt.columns]
    groups = [Group(prompt, (continuation(parts.policy.tokenizer, prompt, str(prompt.columns["answer"])),)) for prompt in prompts]
    totals = [r.total for group in workers.score(groups) for r in group.responses if r.total is not None]
    return f"gold answers earn {fmean(totals):.3g} on average" if totals else ""


def _warnings(groups: Sequence[Group], measured: bool) -> list[str]:
    whole = [group.without_failures() for group in groups]
    told = []
    if not measured and any(group.responses for group in whole) and not any(len(set(group.totals)) > 1 for group in whole):
        told.append("every answer to a prompt earns the same, so there will be no rows; take easier prompts, or another reward")
    responses = [response for group in groups for response in group.responses]
    cut = fmean(response.stop == "length" for response in responses)
    if cut > 0.3:
        told.append(f"{cut:.0%} of the answers are cut off at sampling.max_tokens; give them more room")
    empty = fmean(split_thought(response.text)[0] == "" for response in responses)
    if empty > 0.3:
        told.append(f"{empty:.0%} of the answers leave their thought empty; a reward for the tags alone would keep it so")
    return told


def _answer(prompt: Prompt, response: Response) -> Answer:
    score = response.score
    assert score is not None, "an answer that was scored"
    told = {n: f"{p.value:.3g}" if p.value is not None else f"{p.status} ({p.note})" for n, p in score.parts.items()}
    return Answer(prompt.text, response.text, score.total, told)


def _tokens(parts: Components, group: Group) -> list[list[tuple[str, bool]]]:
    """What is learned of a row of data, and of sampled answers the first."""
    sampled = group.responses[0].logprobs is not None
    asked = [(token, False) for token in group.prompt.tokens]
    rows = [[*asked, *zip(each.tokens, each.mask, strict=True)] for each in (group.responses[:1] if sampled else group.responses)]
    return [[(str(parts.policy.tokenizer.decode([token])), scored) for token, scored in row] for row in rows]
