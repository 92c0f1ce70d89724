"""Reward models as proxies of a known gold reward: preference pairs, models trained on them, and the gold reward of what they choose.

    gold(n) = sum_i C(i - 1, n - 1) / C(N, n) gold_(i)      i the rank by the proxy among N answers: all subsets of n, none is drawn
    R(d)    = d (alpha - beta d)        best of n           R(d) = d (alpha - beta log d)        RL           d = sqrt(KL), arXiv:2210.10760

Letters: P prompts, N answers to each.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import comb
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from ikusei.models.learned_reward import Member
from ikusei.models.load import load_tokenizer
from ikusei.protocols import Task
from ikusei.reproduce.measuring import Judge
from ikusei.reproduce.workspace import Workspace
from ikusei.run.files import write_text
from ikusei.text.chat import render
from ikusei.types import Group, Prompt

EXAMPLES_PER_STEP = 16


def asked(task: Task, count: int) -> list[Prompt]:
    """The task's first training prompts, rendered for the seedling."""
    tokenizer = load_tokenizer("seedling")
    return [render(tokenizer, task.row("train", index)) for index in range(count)]


def pairs(groups: Sequence[Group], judge: Judge, flipped: float = 0.0, seed: int = 0) -> list[dict[str, Any]]:
    """One answer and the next, where the judge tells them apart; each answer is in one pair. This share of the labels is `flipped`. In
    random order."""
    chance, rows = Random(seed), []
    for group in groups:
        texts = [r.text for r in group.responses if r.stop != "length" and r.text.strip()]
        for one, other in zip(texts[::2], texts[1::2], strict=False):
            ahead = judge(group.prompt, one, **group.prompt.columns) - judge(group.prompt, other, **group.prompt.columns)
            if ahead:
                better, worse = (one, other) if (ahead > 0) != (chance.random() < flipped) else (other, one)
                rows.append({"prompt": group.prompt.asked, "chosen": better, "rejected": worse})
    chance.shuffle(rows)
    return rows


def reward_model(workspace: Workspace, name: str, rows: Sequence[Any], seed: int | None = None, **train: Any) -> Path:
    """Bradley-Terry from the seedling, one epoch of the rows, 8 steps at least, unless `train` says otherwise. `seed` is another than the
    workspace's, for an ensemble."""
    file = workspace.folder / f"{name}.jsonl"
    workspace.folder.mkdir(parents=True, exist_ok=True)
    write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    recipe = {
        "model": "seedling",
        "task": {"name": "files", "path": str(file), "test_share": 0.0},
        "algorithm": "bradley_terry",
        "train": {
            "steps": max(8, len(rows) // EXAMPLES_PER_STEP),
            "examples_per_step": EXAMPLES_PER_STEP,
            "lr": 1e-3,
            "lr_shape": "linear",
            **train,
        },
        "eval": {"num_prompts": 0},
    }
    return workspace.train(name, recipe if seed is None else {**recipe, "seed": seed}) / "final"


@torch.no_grad()
def scores(model: Path, groups: Sequence[Group]) -> np.ndarray:
    """[P, N] a reward model's rewards of answers."""
    rewards = Member.load("proxy", str(model), load_tokenizer("seedling")).rewards(groups)
    return np.array(rewards, dtype=float).reshape(len(groups), -1)


def of_best(values: np.ndarray, proxy: np.ndarray, ns: Sequence[int]) -> np.ndarray:
    """[len(ns)] the mean value of the answer that the proxy likes best among n."""
    count = values.shape[1]
    ranked = np.take_along_axis(values, np.argsort(proxy, axis=1, kind="stable"), axis=1).mean(0)
    weights = np.array([[comb(i, n - 1) / comb(count, n) for i in range(count)] for n in ns])
    return weights @ ranked


def kl_of_best(proxy: np.ndarray, logps: np.ndarray, n: int) -> float:
    """KL(best of n || policy) in nats, where the policy holds an answer with p = exp(logp): E log [(F + p/2)^n - (F - p/2)^n] / p, F being
    the share of answers that the proxy puts lower, half of the equal ones among them. It is log n - (n - 1) / n where no answer is likely,
    and less where some are. n must be small against N, for F is a share of N answers."""
    above = proxy[:, :, None] > proxy[:, None, :]
    below = above.mean(2) + (1 - above.mean(2) - above.mean(1)) / 2
    p = np.exp(logps)
    high = np.minimum(below + p / 2, 1)
    with np.errstate(divide="ignore"):  # nothing lies below an answer that holds all that is not above it
        rest = np.log1p(-np.minimum(p / high, 1))
    return float(of_best(n * np.log(high) + np.log(-np.expm1(n * rest)) - logps, proxy, (n,))[0])


def law(d: np.ndarray, gain: np.ndarray, rl: bool = False) -> tuple[float, float, float]:
    """(alpha, beta, R^2) of the least squares fit of one of the laws above. Points at d = 0 count as they are: both laws are 0 there."""
    last = -d * np.log(np.where(d > 0, d, 1.0)) if rl else -(d**2)
    columns = np.stack([d, last], axis=1)
    alpha, beta = np.linalg.lstsq(columns, gain, rcond=None)[0]
    missed = gain - columns @ np.array([alpha, beta])
    return float(alpha), float(beta), float(1 - (missed @ missed) / ((gain - gain.mean()) ** 2).sum())
