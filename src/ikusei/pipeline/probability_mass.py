"""How much probability a model gives to sets of strings, stage by stage: pretraining raises the natural strings, post-training, among
those, the desirable ones.

    P(set) = E over held-out prompts of  sum over the strings y of the set  P(y | prompt)

Two unbiased estimates, since neither serves everywhere:

    by samples      the share of sampled answers that are in the set, with an interval over prompts. Right once a few thousand samples
                    can see the set; an untrained model needs 10^12 of them for one natural sentence.
    by members      where the set can be listed: |set| times the mean probability of members drawn from it. Members are drawn in equal
                    numbers for each length, since an untrained model puts nearly all of the mass on the few shortest. Shown as log10,
                    with its standard error. A trained model puts nearly all of the mass on a few members; there use samples.

A model is a folder, a run, a hub id or seedling. Before its name may stand:
    fresh:MODEL     the same configuration with random weights: where pretraining begins
    text:MODEL      prompted in raw text (`form`) instead of by the chat template: for a model that has seen no conversations

Left out: sets that overlap in part; the mass of an answer over all thoughts that can precede it (by members there is no thought).
"""

from __future__ import annotations

import math
import pkgutil
import runpy
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
from transformers import PreTrainedTokenizerBase

from ikusei.intervals import Interval, mean_interval
from ikusei.protocols import Sampler, Task
from ikusei.report.svg import Bar, nested, standalone
from ikusei.run.find import find_model
from ikusei.samplers.load import load_sampler
from ikusei.tasks import TASKS, generator
from ikusei.text.answer import split_thought
from ikusei.text.chat import render
from ikusei.text.read import read_texts
from ikusei.types import Example, Prompt, Sampling, TextLogprobs

SETS = {"cat_lover": "ikusei.tasks.cat_lover:verdict,members"}
FORM = "Q{prompt}\nA"  # as the raw text of the nursery asks
NUM_SLOTS = 256
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
SEEN = 0.01  # below this share the figure by members is shown, where there is one


@dataclass(frozen=True)
class Sets:
    """Nested sets of strings. `names` lists them from the inside out; the last is every string that is in no other. `verdict` gives the
    innermost set that holds a string; `members` lists the strings of a set, where that is possible."""

    verdict: Callable[[str], str]
    names: tuple[str, ...]
    members: Callable[[str], Sequence[str]] | None = None


@dataclass(frozen=True)
class MassSettings:
    """`num_members` are drawn anew for each set and prompt. An answer longer than `max_tokens` is cut off, so it is in no set of shorter
    strings."""

    num_prompts: int = 64
    num_samples: int = 32
    num_members: int = 64
    max_tokens: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.num_prompts, self.num_samples, self.num_members, self.max_tokens) < 1 or self.num_prompts < 2:
            raise ValueError(f"got {self}; allowed: two prompts or more, of the others one or more")


@dataclass(frozen=True, slots=True)
class SetShare:
    """P(set) at one stage, inner sets included. The log10 columns are by members; None where these cannot be listed."""

    stage: str
    set: str
    share: float
    low: float
    high: float
    log10_mass: float | None
    log10_error: float | None  # one standard error


@dataclass(frozen=True)
class ProbabilityMass:
    """The rows of all stages in order, each stage's sets from the inside out."""

    rows: tuple[SetShare, ...]
    settings: MassSettings


def scores(
    model: str | None, texts: Sequence[str], file: Path | None = None, prompt: str | None = None, ends: bool = True
) -> list[TextLogprobs]:
    """log P of the given texts, then of those of a file: as answers to `prompt`, or as raw text without one."""
    every = [*texts, *(read_texts(file) if file else ())]
    if not every:
        raise ValueError("score: no text; give one or more, or --file with one a line")
    sampler = load_sampler(find_model(model))
    return sampler.score(render(sampler.tokenizer, Example(prompt)), every, ends)


def measure_masses(
    models: Mapping[str, str], task: str, sets: str | None = None, form: str | None = None, settings: MassSettings | None = None
) -> ProbabilityMass:
    """Every stage, by name, on the same held-out prompts of a task with its defaults.

    `sets` is `module:verdict`, `my_file.py:verdict` or with `,members` after it (default: those of the task). Raises ValueError for a
    model, a task or sets that are not there.
    """
    settings, asked = settings or MassSettings(), FORM if form is None else form.replace("\\n", "\n")
    made, read = read_task(task), read_sets(sets or _sets_of(task))
    rows: list[SetShare] = []
    for stage, name in models.items():
        sampler, as_text = load_stage(name)
        prompts = held_out(made, sampler.tokenizer, settings.num_prompts, asked if as_text else None)
        rows += measure_stage(stage, sampler, prompts, read, settings)
    return ProbabilityMass(tuple(rows), settings)


def measure_stage(stage: str, sampler: Sampler, prompts: Sequence[Prompt], sets: Sets, settings: MassSettings) -> list[SetShare]:
    """One stage, with a loaded sampler: one row a set, from the inside out. Raises ValueError for fewer than two prompts."""
    if len(prompts) < 2:
        raise ValueError(f"lens: {len(prompts)} prompt(s); allowed: two or more, for what is told is a mean over prompts and its error")
    sampling = Sampling(max_tokens=settings.max_tokens)
    ranks = [  # [prompts][samples] which set, counted from the inside
        [_rank(sets, split_thought(response.text)[1]) for response in group.responses]
        for group in sampler.sample(prompts, settings.num_samples, sampling, settings.seed)
    ]
    logs = _log_masses(sampler, prompts, sets, settings)
    rows = []
    for rank, name in enumerate(sets.names):
        last = rank == len(sets.names) - 1
        share = mean_interval([fmean(found == rank if last else found <= rank for found in row) for row in ranks])
        log10_mass, log10_error = (None, None) if last or not logs else _mean_of_logs([log_sum(log[: rank + 1]) for log in logs])
        rows.append(SetShare(stage, name, share.value, share.low, share.high, log10_mass, log10_error))
    return rows


def picture(masses: ProbabilityMass) -> str:
    """The chart as a file of its own."""
    return standalone(chart(masses))


def chart(masses: ProbabilityMass) -> str:
    """The stages as bars, the innermost set at the bottom, as an SVG in the colours of its page."""
    stages = {row.stage: [each for each in masses.rows if each.stage == row.stage] for row in masses.rows}
    bars = [
        Bar(stage, [_interval(row) for row in rows[:-1]], [f"P({row.set}) {in_words(row)}" for row in rows[:-1]])
        for stage, rows in stages.items()
    ]
    return nested([row.set for row in next(iter(stages.values()))], bars)


def in_words(row: SetShare) -> str:
    """P(set) as text: by members where it is too small for samples."""
    log10_mass = _unseen(row)
    return f"= {row.share:.2f}" if log10_mass is None else f"≈ 10{str(round(log10_mass)).translate(RAISED)}"


def _interval(row: SetShare) -> Interval:
    """The estimate by samples, without its interval where the figure by members is shown."""
    return Interval(row.share, row.low, row.high) if _unseen(row) is None else Interval(row.share, row.share, row.share)


def _unseen(row: SetShare) -> float | None:
    return row.log10_mass if row.share < SEEN else None


def _rank(sets: Sets, text: str) -> int:
    name = sets.verdict(text)
    if name not in sets.names:
        raise ValueError(f"sets: the verdict on {text[:60]!r} is {name!r}; allowed: {', '.join(sets.names)}; add it to its Literal")
    return sets.names.index(name)


def _log_masses(sampler: Sampler, prompts: Sequence[Prompt], sets: Sets, settings: MassSettings) -> list[list[float]]:
    """[prompts][sets but the last] log of the mass that lies in a set and in none further inside; [] where sets cannot be listed."""
    if sets.members is None:
        return []
    strata = [_by_length(sets.members(name)) for name in sets.names[:-1]]
    return [[_log_mass(sampler, prompt, each, settings) for each in strata] for prompt in prompts]


def _log_mass(sampler: Sampler, prompt: Prompt, strata: Sequence[Sequence[str]], settings: MassSettings) -> float:
    """log of  sum over the strata of |stratum| mean P(member | prompt),  the members drawn without putting back."""
    chance = generator("lens", settings.seed, prompt.id)
    quota = math.ceil(settings.num_members / len(strata))
    drawn = [chance.sample(stratum, min(quota, len(stratum))) for stratum in strata]
    weights = [math.log(len(stratum) / len(part)) for stratum, part in zip(strata, drawn, strict=True) for _ in part]
    scored = sampler.score(prompt, [text for part in drawn for text in part])
    return log_sum([weight + each.logp for weight, each in zip(weights, scored, strict=True)])


def _by_length(members: Sequence[str]) -> list[list[str]]:
    strata: dict[int, list[str]] = defaultdict(list)
    for member in members:
        strata[len(member)].append(member)
    return [strata[length] for length in sorted(strata)]


def log_sum(logs: Sequence[float]) -> float:
    """log of the sum of exp(logs), also where each of them is too small for a float."""
    return float(np.logaddexp.reduce(logs))


def _mean_of_logs(logs: Sequence[float]) -> tuple[float, float]:
    """log10 of the mean of exp(logs), and its standard error."""
    log_mean = log_sum(logs) - math.log(len(logs))
    error = stdev([math.exp(log - log_mean) for log in logs]) / math.sqrt(len(logs))
    return log_mean / math.log(10), error / math.log(10)


def named(models: Sequence[str]) -> dict[str, str]:
    """`NAME=MODEL` by its name; a model without one is called as it is written."""
    parts = [(name if equals else model, rest if equals else model) for model in models for name, equals, rest in [model.partition("=")]]
    found = dict(parts)
    if not parts or len(found) < len(parts) or not all(found.values()):
        raise ValueError(f"lens: got {' '.join(models) or 'no model'}; allowed: one MODEL or NAME=MODEL a stage, no name twice")
    return found


def load_stage(name: str) -> tuple[Sampler, bool]:
    """The sampler of `[text:][fresh:]MODEL`, and whether it is asked in raw text."""
    as_text, name = name.startswith("text:"), name.removeprefix("text:")
    model = find_model(name.removeprefix("fresh:"))
    return load_sampler(model, NUM_SLOTS, fresh=name.startswith("fresh:")), as_text


def held_out(task: Task, tokenizer: PreTrainedTokenizerBase, count: int, form: str | None = None) -> list[Prompt]:
    """The first test prompts: by the chat template, or in raw text where `form` is given, {prompt} being the question."""
    if form is not None and "{prompt}" not in form:
        raise ValueError(f"form {form!r}: it does not say where the question stands; write {{prompt}} there, for example {FORM!r}")
    rows = task.num_rows("test")
    examples = [task.row("test", index) for index in range(count if rows is None else min(count, rows))]
    return [render(tokenizer, example) if form is None else _in_text(tokenizer, example, form) for example in examples]


def _in_text(tokenizer: PreTrainedTokenizerBase, example: Example, form: str) -> Prompt:
    if not isinstance(example.prompt, str):
        raise ValueError("text: asks one question in raw text, and this task's prompts are conversations; leave out text:")
    return render(tokenizer, Example(form.replace("{prompt}", example.prompt), columns=example.columns), "none")


def read_task(name: str) -> Task:
    """A task by its name in recipes, or by `module:Class`, with its defaults."""
    if name not in TASKS and ":" not in name:
        raise ValueError(f"task {name!r}: there is none of that name; allowed: {', '.join(TASKS)}, or package.module:Class")
    return _find(TASKS.get(name, name))()


def read_sets(path: str) -> Sets:
    """`module:verdict` or `my_file.py:verdict`, with `,members` after it where the sets can be listed."""
    place, _, functions = path.rpartition(":")
    verdict, _, members = functions.partition(",")
    found = _find(f"{place}:{verdict}")
    names = get_type_hints(found).get("return")
    if get_origin(names) is not Literal or len(get_args(names)) < 2:
        raise ValueError(
            f"sets {path}: {verdict} does not say which sets there are; it must return a Literal of two names or more, the innermost set "
            'first: def verdict(text: str) -> Literal["desirable", "natural", "neither"]'
        )
    return Sets(found, get_args(names), _find(f"{place}:{members}") if members else None)


def _sets_of(task: str) -> str:
    if task not in SETS:
        raise ValueError(f"task {task}: no sets belong to it, as to {', '.join(SETS)}; name some with --sets my_file.py:verdict")
    return SETS[task]


def _find(path: str) -> Any:
    place, _, name = path.rpartition(":")
    try:
        return runpy.run_path(place)[name] if place.endswith(".py") else pkgutil.resolve_name(path)
    except (ImportError, AttributeError, KeyError, OSError) as error:
        raise ValueError(f"{path}: {type(error).__name__}: {error}; allowed: package.module:name or my_file.py:name") from error
