"""Before a run: is the recipe right, does the data fit the model, what do the rewards say of real answers, will it fit in memory?

Nothing is trained and nothing is written. What it finds is one record, `Check`, shown by `show` or printed as JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ikusei.guard.outcomes import too_many_failures
from ikusei.guard.workers import RewardWorkers
from ikusei.loops.few_shot import evaluate_with_shots
from ikusei.loops.order import in_order
from ikusei.loops.readiness import Readiness, Verdict, readiness, verdict
from ikusei.loops.supervised import SupervisedSettings
from ikusei.models.words import BLOCK_LOGITS, KEPT_LOGITS
from ikusei.parts import Parts, build
from ikusei.recipe import Recipe, read_recipe
from ikusei.run.files import plain
from ikusei.run.statistics import Interval
from ikusei.stages import Stage, is_road, prove, read_stages
from ikusei.talk import find_model
from ikusei.tasks.files import Files
from ikusei.text.answer import split_thought
from ikusei.text.chat import continuation
from ikusei.types import Group, Prompt, Response

SHOWN = 3  # prompts whose answers are shown
ANSWERS = 8  # answers to each


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

    @property
    def ready(self) -> bool:
        return not self.problems

    def plain(self) -> dict[str, Any]:
        return {**asdict(self), "ready": self.ready}


def check_file(path: Path, overrides: Sequence[str] = ()) -> Check:
    """A recipe, of stages or of one. Of stages the first is tried whole, and of the others what does not wait for it."""
    if not is_road(path):
        return check(read_recipe(path, overrides))
    stages = read_stages(path, overrides)
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
    facts = {"model": f"{parts.facts['parameters']:,} parameters, {parts.facts['precision']}; {parts.policy.said}"}
    facts |= {"data": _data(recipe, parts), "memory": _memory(recipe, parts)}
    if isinstance(recipe.train, SupervisedSettings):
        group = parts.rows.examples(0, 1)[0]
        return Check(facts, tokens=_tokens(parts, group))
    with parts.workers() as workers:
        gold = _gold(parts, workers)
        if recipe.train is None:
            groups, forecast = _answered(recipe, parts, workers), None
        else:
            sampler = parts.policy.snapshot()
            found = readiness(sampler, parts.rows, parts.eval_rows, workers, recipe.train, recipe.sampling, recipe.eval)
            groups, forecast = list(found.groups), verdict(found, recipe.train)
            facts |= _readiness(found)
    facts["rewards"] = _signal(groups, forecast is not None) + (f"; {gold}" if gold else "")
    problem = too_many_failures(groups, *([] if recipe.train is None else [recipe.train.max_failures]))
    answers = [_answer(group.prompt, response) for group in groups[:SHOWN] for response in group.responses[:2]]
    some = too_many_failures(groups, 0.0)
    warnings = ([some] if some and not problem else []) + _warnings(groups, forecast is not None)
    return Check(facts, [problem] if problem else [], warnings, answers, _tokens(parts, groups[0]), forecast)


def measure(recipe: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """The evaluation that a run makes before training, of the recipe's model as it is. A run folder stands for what it raised."""
    if is_road(recipe):
        raise ValueError(f"{recipe}: a recipe of stages; eval measures one model: give a recipe of one stage, with model=runs/<this run>")
    read = read_recipe(recipe, overrides)
    parts = build(replace(read, model=find_model(read.model)) if isinstance(read.model, str) else read)
    if not parts.rewards or read.eval.num_prompts == 0:
        raise ValueError(f"{recipe}: nothing to measure: {len(parts.rewards)} rewards, eval.num_prompts {read.eval.num_prompts}; give both")
    with parts.workers() as workers:
        found = evaluate_with_shots(parts.policy.snapshot(), parts.eval_rows, workers, read.eval, read.sampling, read.seed).results
    return plain(found)


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


def _data(recipe: Recipe, parts: Parts) -> str:
    rows = {split: recipe.task.num_rows(split) for split in ("train", "test")}
    counts = ", ".join(f"{'endless' if n is None else n} {split} rows" for split, n in rows.items())
    shape = f" of {recipe.task.shape}" if isinstance(recipe.task, Files) else ""
    first = min(64, rows["train"] or 64)
    what, lengths = "prompts", [len(prompt.tokens) for prompt in parts.rows.prompts(0, first)]
    if isinstance(recipe.train, SupervisedSettings):
        groups = parts.rows.examples(0, first)
        what = "prompts with a response"
        lengths = [len(group.prompt.tokens) + len(response.tokens) for group in groups for response in group.responses]
    told = f"{what} of {min(lengths)} to {max(lengths)} tokens (median {median(lengths):g})"
    return f"{counts}{shape}; {told}; the model's context holds {parts.policy.causal.context}"


def _memory(recipe: Recipe, parts: Parts) -> str:
    """fp32 weights, gradients and two moments, also of a critic; what a part keeps for the backward (17 numbers of hidden size a token and
    layer, arXiv:2205.05198, without the attention scores); the logits that are kept, and a block of them with its gradient; keys and values
    of the sampler; the weights of a reference and of reward models."""
    config, parameters = parts.policy.causal.model.config.get_text_config(), parts.facts["parameters"]
    hidden, layers = config.hidden_size, config.num_hidden_layers
    asked = sum(p.numel() for judge in parts.judges.values() for each in judge.members for p in each.model.model.parameters())
    refers = recipe.algorithm is not None and {"reference", "mismatched"} & recipe.algorithm.needs
    asked += parameters * bool(refers and not recipe.policy.lora)  # with adapters it is the model without them
    state, activations, cache = 4 * parameters + 4 * asked, 0, 0
    if recipe.train is not None:
        weights = list(parts.policy.trained.parameters())
        state = sum((16 if p.requires_grad else 4) * p.numel() for p in weights) + 4 * asked
        activations = recipe.train.tokens_per_part * hidden * 4 * (layers + 17 if recipe.policy.gradient_checkpointing else 17 * layers)
    if not isinstance(recipe.train, SupervisedSettings):
        cache = 8 * layers * hidden * parts.policy.settings.num_slots * min(recipe.sampling.max_tokens + 64, parts.policy.causal.context)
    export = 4 * parameters if recipe.policy.lora else 0  # the whole model once more, on the CPU, while it is saved
    total = state + activations + cache + export + 4 * KEPT_LOGITS + 12 * BLOCK_LOGITS
    pieces = {"weights and optimiser": state, "activations": activations, "sampler": cache} | ({"saving": export} if export else {})
    return f"about {_size(total)} at most beside torch itself: " + ", ".join(f"{name} {_size(size)}" for name, size in pieces.items())


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _readiness(found: Readiness) -> dict[str, str]:
    count, size = len(found.groups), found.size
    room = "; " + ", ".join(f"{name} {_share(each)}" for name, each in found.headroom.items()) + f" of {found.deep}" if found.deep else ""
    even = f"at this pass rate for every prompt it would be {found.forecast:.0%}"
    cost = f"; a group that teaches takes {found.per_useful:.0f} answers" if found.per_useful else ""
    facts = {
        "passes": f"{_share(found.pass_rate)} of {count * size:,} answers to {count} prompts{room}",
        "signal": f"{_share(found.signal)} of groups of {size} teach; {even}{cost}",
        "form": f"{found.formed:.0%} of answers end with something said, {found.truncated:.0%} are cut off",
    }
    if found.chance:
        facts["guessing"] = ", ".join(f"{name} passes on {share:.0%}" for name, share in found.chance.items())
    if found.repeated or found.leaked:
        facts["prompts"] = f"{found.repeated} of {count} occur twice; {found.leaked} held-out prompts are among them"
    return facts


def _share(each: Interval) -> str:
    return f"{each.value:.0%} ({each.low:.0%} to {each.high:.0%})"


def _answered(recipe: Recipe, parts: Parts, workers: RewardWorkers) -> list[Group]:
    prompts = parts.rows.prompts(0, (recipe.collect or recipe.train).prompts_per_step)
    groups = parts.policy.snapshot().sample(prompts, ANSWERS, recipe.sampling, recipe.seed)
    return in_order(prompts, workers.score(groups))


def _gold(parts: Parts, workers: RewardWorkers) -> str:
    """What the rewards say of the gold answers, where the data has some."""
    prompts = [prompt for prompt in parts.rows.prompts(0, 16) if "answer" in prompt.columns]
    groups = [Group(prompt, (continuation(parts.policy.tokenizer, prompt, str(prompt.columns["answer"])),)) for prompt in prompts]
    totals = [r.total for group in workers.score(groups) for r in group.responses if r.total is not None]
    return f"gold answers earn {fmean(totals):.3g} on average" if totals else ""


def _signal(groups: Sequence[Group], measured: bool) -> str:
    """What answers earn; and whether they differ, unless that was measured better."""
    mixed = sum(len(set(group.without_failures().totals)) > 1 for group in groups)
    totals = [total for group in groups for total in group.without_failures().totals]
    mean = f"mean reward {fmean(totals):.3g}" if totals else "no answer could be scored"
    told = f"{mean}; {mixed} of {len(groups)} groups of {ANSWERS} have answers of different worth, and only these give rows"
    return mean if measured else told


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


def _tokens(parts: Parts, group: Group) -> list[list[tuple[str, bool]]]:
    """What is learned of a row of data, and of sampled answers the first."""
    sampled = group.responses[0].logprobs is not None
    asked = [(token, False) for token in group.prompt.tokens]
    rows = [[*asked, *zip(each.tokens, each.mask, strict=True)] for each in (group.responses[:1] if sampled else group.responses)]
    return [[(str(parts.policy.tokenizer.decode([token])), scored) for token, scored in row] for row in rows]
