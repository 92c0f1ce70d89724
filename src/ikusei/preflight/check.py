"""`ikusei check`: is the recipe right, does the data fit the model, how do the rewards score real answers, will it fit in memory?

Nothing is trained, and files are written only on request (advice.py). The result is one record, `Check`: `show` prints it for a person,
`plain` gives it as JSON.
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
from ikusei.preflight import advice
from ikusei.preflight.facts import ANSWERS, correlation_fact, data_fact, memory_fact, preference_facts, readiness_facts, reward_fact
from ikusei.preflight.readiness import ReadinessVerdict, measure_readiness, readiness_verdict
from ikusei.recipe.build import Components, build
from ikusei.recipe.find import find_recipe
from ikusei.recipe.schema import Recipe, document_of, read_recipe
from ikusei.recipe.stage_checks import check_stage
from ikusei.recipe.stages import Stage, has_stages, read_stages
from ikusei.text.answer import split_thought
from ikusei.text.chat import continuation
from ikusei.types import Group, Prompt, Response

SHOWN = 3  # prompts whose answers are shown


@dataclass(frozen=True)
class Answer:
    """One sampled answer and its rewards: `parts` is by reward, in words."""

    prompt: str
    response: str
    total: float | None
    parts: dict[str, str]


@dataclass(frozen=True)
class Check:
    """The result. `problems` must be fixed before training; `warnings` are worth knowing."""

    facts: dict[str, str]
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    tokens: list[list[tuple[str, bool]]] = field(default_factory=list)  # the first row, each of its responses token by token after the
    # prompt: the token's text and whether it is scored
    verdict: ReadinessVerdict | None = None  # of a recipe that learns from a reward
    written: list[str] = field(default_factory=list)  # files that were asked for

    @property
    def ready(self) -> bool:
        return not self.problems

    def plain(self) -> dict[str, Any]:
        return {**asdict(self), "ready": self.ready}


def check_file(path: Path, overrides: Sequence[str] = (), files: Path | None = None) -> Check:
    """Check a recipe file. In a recipe of stages the first stage is checked whole, and of each later one what does not depend on earlier
    stages. `files` is a new folder for the files that the verdict recommends (advice.py)."""
    path = find_recipe(path)
    if not has_stages(path):
        recipe = read_recipe(path, overrides)
        if files is not None:
            advice.must_be_writable(recipe, files)
        result = check(recipe)
        return result if files is None else replace(result, written=advice.write(recipe, result.verdict, files))
    if files is not None:
        raise ValueError(f"{path}: a recipe of stages; --write is for a recipe of one stage")
    stages = read_stages(document_of(path), overrides)
    for stage in stages[1:]:
        check_stage(stage, stages)
    result = check(stages[0].recipe())
    return replace(result, facts={"stage": f"1 of {len(stages)}: {stages[0].name}", **result.facts, **dict(map(_later, stages[1:]))})


def _later(stage: Stage) -> tuple[str, str]:
    """The fact about a stage whose predecessors have not run."""
    takes = ", ".join(dict.fromkeys(f"{'.'.join(key)} from {name}" for key, name in stage.takes))
    fact = f"{stage.name}: read and tried" + (f", but for what it takes from earlier stages: {takes}" if takes else "")
    return f"stage {stage.number}", fact


def check(recipe: Recipe) -> Check:
    """Try everything that a run needs. Raises ValueError where something that the recipe names cannot be loaded."""
    components = build(recipe)
    facts = {"model": f"{components.policy.size.parameters:,} parameters, {recipe.policy.precision}; {components.policy.description}"}
    facts |= {"data": data_fact(recipe, components), "memory": memory_fact(recipe, components)}
    if not recipe.loop.samples:
        more, warnings = preference_facts(recipe, components)
        return Check(facts | more, warnings=warnings, tokens=_tokens(components, components.rows.examples(0, 1)[0]))
    with components.workers() as workers:
        gold = _gold(components, workers)
        if recipe.train is None:
            groups, verdict = _answered(recipe, components, workers), None
        else:
            sampler = components.policy.snapshot()
            measured = measure_readiness(
                sampler, components.rows, components.eval_rows, workers, recipe.train, recipe.sampling, recipe.eval
            )
            groups, verdict = list(measured.groups), readiness_verdict(measured, recipe.train)
            facts |= readiness_facts(measured)
    facts["rewards"] = reward_fact(groups, verdict is not None) + (f"; {gold}" if gold else "") + correlation_fact(groups, components)
    problem = too_many_failures(groups, *([] if recipe.train is None else [recipe.train.max_failures]))
    answers = [_answer(group.prompt, response) for group in groups[:SHOWN] for response in group.responses[:2]]
    some = too_many_failures(groups, 0.0)
    warnings = ([some] if some and not problem else []) + _warnings(groups, verdict is not None)
    return Check(facts, [problem] if problem else [], warnings, answers, _tokens(components, groups[0]), verdict)


def show(result: Check, console: Console) -> None:
    """For a person."""
    for name, fact in result.facts.items():
        console.print(f"[bold]{name:10}[/]", end="")
        console.print(fact, markup=False, highlight=False, soft_wrap=True)
    if result.tokens:
        console.print("\n[bold]the first row, as tokens[/] ([green]scored[/] and [dim]not scored[/])")
    for response in result.tokens:
        console.print(Text.assemble(*[(piece, "green" if scored else "dim") for piece, scored in response]))
    if result.answers:
        table = Table("prompt", "answer", "total", "rewards", title="\nreal answers and what they earn", title_justify="left", box=None)
        for answer in result.answers:
            total = "none" if answer.total is None else f"{answer.total:.3g}"
            rewards = ", ".join(f"{name} {value}" for name, value in answer.parts.items())
            table.add_row(Text(answer.prompt[-60:]), Text(answer.response[:160]), total, Text(rewards))
        console.print(table)
    for style, word, lines in (("yellow", "warning", result.warnings), ("bold red", "problem", result.problems)):
        for line in lines:
            console.print(Text.assemble(("\n" + word + ": ", style), line))
    console.print("\n[bold green]ready to train[/]" if result.ready else "\n[bold red]not ready[/]")
    if result.verdict is not None:
        style = "bold green" if result.verdict.name == "ready" else "bold yellow"
        line = Text.assemble("will it learn?  ", (result.verdict.name, style), f"  {result.verdict.why}")
        console.print(line.append(f"\n          next  {result.verdict.next}"), soft_wrap=True)
    for line in result.written:
        console.print(Text.assemble(("wrote  ", "bold"), line), soft_wrap=True)


def _answered(recipe: Recipe, components: Components, workers: RewardWorkers) -> list[Group]:
    prompts = components.rows.prompts(0, recipe.loop.prompts_per_step)
    groups = components.policy.snapshot().sample(prompts, ANSWERS, recipe.sampling, recipe.seed)
    return in_order(prompts, workers.score(groups))


def _gold(components: Components, workers: RewardWorkers) -> str:
    """The mean reward of the gold answers, where the data has some."""
    prompts = [prompt for prompt in components.rows.prompts(0, 16) if "answer" in prompt.columns]
    groups = [Group(prompt, (continuation(components.policy.tokenizer, prompt, str(prompt.columns["answer"])),)) for prompt in prompts]
    totals = [r.total for group in workers.score(groups) for r in group.responses if r.total is not None]
    return f"gold answers earn {fmean(totals):.3g} on average" if totals else ""


def _warnings(groups: Sequence[Group], has_signal: bool) -> list[str]:
    whole = [group.without_failures() for group in groups]
    warnings = []
    if not has_signal and any(group.responses for group in whole) and not any(len(set(group.totals)) > 1 for group in whole):
        warnings.append("every answer to a prompt earns the same, so there will be no rows; take easier prompts, or another reward")
    responses = [response for group in groups for response in group.responses]
    cut = fmean(response.stop == "length" for response in responses)
    if cut > 0.3:
        warnings.append(f"{cut:.0%} of the answers are cut off at sampling.max_tokens; give them more room")
    empty = fmean(split_thought(response.text)[0] == "" for response in responses)
    if empty > 0.3:
        warnings.append(f"{empty:.0%} of the answers leave their thought empty; a reward for the tags alone would keep it so")
    return warnings


def _answer(prompt: Prompt, response: Response) -> Answer:
    score = response.score
    assert score is not None, "an answer that was scored"
    rewards = {n: f"{p.value:.3g}" if p.value is not None else f"{p.status} ({p.note})" for n, p in score.parts.items()}
    return Answer(prompt.text, response.text, score.total, rewards)


def _tokens(components: Components, group: Group) -> list[list[tuple[str, bool]]]:
    """Token by token, whether it is scored: every response of a row of data, or the first of the sampled answers."""
    sampled = group.responses[0].logprobs is not None
    prompt = [(token, False) for token in group.prompt.tokens]
    rows = [[*prompt, *zip(each.tokens, each.mask, strict=True)] for each in (group.responses[:1] if sampled else group.responses)]
    return [[(str(components.policy.tokenizer.decode([token])), scored) for token, scored in row] for row in rows]
