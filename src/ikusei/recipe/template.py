"""`ikusei new`: write a commented recipe for a user's data. Its columns decide the method: texts, pairs, rankings, labels or sampling."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ikusei.rewards import BUILT_IN
from ikusei.tasks.files import Files
from ikusei.types import Example

ONLINE = """\
# Raise {model} on {data} by reinforcement learning. Try it first:   ikusei check {recipe}
seed: 0
model: {model}              # a folder, a hub id, or seedling
task:
  name: files
  path: {data}
  # columns: {{prompt: question}}      # where the file calls it otherwise; every other column goes to the reward by name
  test_share: 0.1                    # held out and measured before and after

rewards:
  - {reward}
  # - {{name: think_format, gate: true}}              # multiplies: no format, no reward
  # - {{path: my_judge.py:score, gold: true}}         # measured, never trained on

algorithm:
  name: grpo
  # clip_high: 0.28                  # DAPO's "clip higher": keeps rare words alive
  # kl_coef: 0.01                    # stay near the model that this run starts from

sampling:
  max_tokens: 256
  temperature: 1.0

train:
  steps: 100
  prompts_per_step: {prompts}
  num_responses: 8                   # answers to each prompt; more find a right one more often
  lr: {lr}                         # 1e-6 to 1e-5 for models of a billion parameters, up to 1e-4 for the seedling
  save_every: 20

eval:
  num_prompts: 32
  num_samples: 8
  pass_at: 1.0                       # an answer passes when its reward is at least this
"""

SUPERVISED = """\
# {kind.title}   Try it first:   ikusei check {recipe}
seed: 0
model: {model}              # a folder, a hub id, or seedling
task:
  name: files
  path: {data}
  # columns: {{{kind.columns}}}    # where the file calls them otherwise
  test_share: 0.1                    # held out and measured before and after

algorithm:
  {kind.algorithm}

train:
  steps: {kind.steps}
  examples_per_step: {prompts}
  lr: {lr}                         # {kind.large} for models of a billion parameters, up to {kind.small} for the seedling
  warmup_steps: 10
  save_every: 50
"""


@dataclass(frozen=True)
class Kind:
    """The words of a recipe for one kind of data, and learning rates for a small and a large model."""

    title: str
    columns: str
    algorithm: str
    steps: int
    small: str
    large: str
    how: str


TEXTS = Kind(
    "Teach a model these texts.", "prompt: question, completion: answer", "name: lm", 200, "1e-3", "1e-5", "learns from its texts (lm)"
)
PAIRS = Kind(
    "Teach a model which of two answers is better.",
    "prompt: question, chosen: response_a, rejected: response_b",
    "name: dpo\n  beta: 0.1                          # how near to stay to the model that this run starts from",
    100, "1e-4", "1e-6", "learns from its pairs (dpo)",
)  # fmt: skip
RANKINGS = Kind(
    "Make a reward model from rankings; use it as `rewards: [{path: learned, settings: {model: runs/<this run>/final}}]`.",
    "prompt: question, responses: answers, ranking: ranks",
    "name: bradley_terry",
    100, "5e-4", "1e-5", "makes a reward model from its rankings (bradley_terry)",
)  # fmt: skip
LABELS = Kind(
    "Teach a model from answers that were called good or bad.",
    "prompt: question, completion: answer, label: good",
    "name: kto\n  # desirable_weight: 1.0            # raise it where most answers are bad, so that good and bad weigh about the same",
    100, "1e-4", "1e-6", "learns from its labels (kto)",
)  # fmt: skip


def write_recipe(recipe: Path, data: Path, reward: str | None, model: str) -> list[str]:
    """Writes the file; returns lines that say what comes next. Raises ValueError where the file exists or the data cannot be read."""
    if recipe.exists():
        raise ValueError(f"{recipe}: exists, and is not overwritten; choose another name or remove it")
    if reward is not None and ":" not in reward and reward not in BUILT_IN:
        raise ValueError(f"reward {reward!r}: unknown; allowed: {', '.join(BUILT_IN)}, or my_reward.py:function")
    rows = Files(data)
    count, first = rows.num_rows("train"), rows.row("train", 0)
    kind = kind_of(first) if reward is None else None
    if kind is None and reward is None and "answer" not in first.columns:
        seen = ", ".join(("prompt", *first.columns))
        raise ValueError(
            f"{data}: its rows only ask (columns seen: {seen}), and nothing says what a good answer is; allowed: a column 'answer', "
            "responses to learn from, or a reward of your own with --reward my_reward.py:function"
        )
    small, large = (kind.small, kind.large) if kind else ("1e-4", "1e-6")
    filled = {"model": model, "recipe": recipe, "lr": small if model == "seedling" else large, "kind": kind}
    filled |= {"data": json.dumps(str(_seen_from(recipe, data)), ensure_ascii=False)}  # quoted, whatever it holds
    filled |= {"reward": _entry(recipe, reward), "prompts": max(2, min(16, count)) if kind is LABELS else min(16, count)}
    text = (SUPERVISED if kind else ONLINE).format(**filled)
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(text, encoding="utf-8")
    how = kind.how if kind else f"learns from sampled answers and the reward {reward or 'exact'}"
    return [f"{recipe}: {count} training rows, {how}", f"next: ikusei check {recipe}", f"then: ikusei train {recipe}"]


def kind_of(row: Example) -> Kind | None:
    """What kind of data a row is; None where it holds only a prompt."""
    if not row.responses:
        return None
    if row.labels is not None:
        return LABELS
    return TEXTS if row.tiers is None else PAIRS if len(row.responses) == 2 else RANKINGS


def _entry(recipe: Path, reward: str | None) -> str:
    reward = reward or "exact"
    if ":" not in reward:
        return BUILT_IN.constant(reward, "example", reward)
    file, _, function = reward.rpartition(":")
    path = f"{_seen_from(recipe, Path(file))}:{function}" if file.endswith(".py") else reward
    return f"{{path: {json.dumps(path, ensure_ascii=False)}, weight: 1.0}}"


def _seen_from(recipe: Path, file: Path) -> Path:
    """Paths in a recipe start at its folder."""
    here, there = recipe.parent.resolve(), file.resolve()
    return there.relative_to(here) if there.is_relative_to(here) else there
