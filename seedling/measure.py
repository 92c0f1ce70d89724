"""What the seedling can do, as a table: the figures of README.md beside this file.     python seedling/measure.py [model folder]

Sums: 64 held-out prompts × 64 answers at temperature 1; reasoning-gym 48 × 16, the cat lover 64 × 64.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from statistics import fmean

import torch

from ikusei.guard.workers import RewardSpec, RewardWorkers
from ikusei.intervals import mean_interval, pass_at
from ikusei.loops.data import Rows
from ikusei.loops.metrics import thoughts
from ikusei.loops.order import in_order
from ikusei.protocols import Task
from ikusei.samplers.load import load_sampler
from ikusei.samplers.local import LocalSampler
from ikusei.tasks.arithmetic import Arithmetic
from ikusei.tasks.cat_lover import CatLover, verdict
from ikusei.tasks.nursery import GYMS
from ikusei.text.answer import split_thought
from ikusei.types import Group, Response, Sampling


def main(model: str) -> None:
    torch.set_num_threads(1)
    sampler = load_sampler(model, num_slots=256)
    sums = answered(sampler, Arithmetic(), 64, 64)
    row("sums, pass@1", *shares(sums))
    row("sums, pass@64", *(lambda i: (i.value, i.low, i.high))(pass_at(64, rights(sums))))
    responses = [response for group in sums for response in group.responses]
    row("sums, well-formed: one thought, perhaps empty, then an answer", fmean(well_formed(response) for response in responses))
    described = thoughts(responses)
    row("sums, thought left empty", described["thoughts/empty"])
    row("sums, no thought at all", described["thoughts/none"])
    worked = [response for response in responses if split_thought(response.text)[0]]
    row("sums, right where worked", fmean(right(response) for response in worked))
    row("sums, right where the thought is empty", fmean(right(r) for r in responses if split_thought(r.text)[0] == ""))
    for task in GYMS:
        row(f"reasoning-gym {task.task}, pass@1", *shares(answered(sampler, task, 48, 16)))
    said = [split_thought(r.text)[1] for group in answered(sampler, CatLover(), 64, 64) for r in group.responses]
    row("cat lover, natural sentences", fmean(verdict(sentence) != "neither" for sentence in said))
    row("cat lover, kind about cats", fmean(verdict(sentence) == "desirable" for sentence in said))


def answered(sampler: LocalSampler, task: Task, num_prompts: int, num_samples: int) -> list[Group]:
    """Scored answers to held-out prompts."""
    prompts = Rows(task, sampler.tokenizer, 0).held_out(num_prompts)
    specs = [RewardSpec("right", path) for path in task.rewards]
    with RewardWorkers(specs) as workers:
        groups = workers.score(sampler.sample(prompts, num_samples, Sampling(max_tokens=96), 0))
    return in_order(prompts, groups)


def right(response: Response) -> bool:
    return response.score is not None and response.score.total == 1.0


def rights(groups: Sequence[Group]) -> list[list[bool]]:
    return [[right(response) for response in group.responses] for group in groups]


def shares(groups: Sequence[Group]) -> tuple[float, float, float]:
    interval = mean_interval([fmean(row) for row in rights(groups)])
    return interval.value, interval.low, interval.high


def well_formed(response: Response) -> bool:
    """One thought at the start, possibly empty, and an answer after it."""
    text = response.text
    return text.startswith("<think>") and text.count("<think>") == text.count("</think>") == 1 and split_thought(text)[1] != ""


def row(name: str, value: float, low: float | None = None, high: float | None = None) -> None:
    interval = "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
    print(f"| {name} | {value:.3f} | {interval} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "seedling")
