"""Write a commented recipe for a user's own data. Its columns decide whether it learns from the texts or from sampled answers."""

from __future__ import annotations

import json
from pathlib import Path

from ikusei.rewards import BUILT_IN
from ikusei.tasks.files import Files

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
# Teach {model} the texts of {data}. Try it first:   ikusei check {recipe}
seed: 0
model: {model}              # a folder, a hub id, or seedling
task:
  name: files
  path: {data}
  # columns: {{prompt: question, completion: answer}}  # where the file calls them otherwise
  test_share: 0.1

algorithm: lm

train:
  steps: 200
  examples_per_step: {prompts}
  lr: {lr}                         # 1e-5 for models of a billion parameters, up to 1e-3 for the seedling
  warmup_steps: 10
  save_every: 50
"""


def write_recipe(recipe: Path, data: Path, reward: str | None, model: str) -> list[str]:
    """Writes the file and says what comes next. Raises ValueError where the file exists or the data cannot be read."""
    if recipe.exists():
        raise ValueError(f"{recipe}: exists, and is not overwritten; choose another name or remove it")
    if reward is not None and ":" not in reward and reward not in BUILT_IN:
        raise ValueError(f"reward {reward!r}: unknown; allowed: {', '.join(BUILT_IN)}, or my_reward.py:function")
    rows = Files(data)
    count, first = rows.num_rows("train"), rows.row("train", 0)
    supervised = bool(first.responses) and reward is None
    small = model == "seedling"
    lr = ("1e-3" if supervised else "1e-4") if small else ("1e-5" if supervised else "1e-6")
    template = SUPERVISED if supervised else ONLINE
    path = json.dumps(str(_seen_from(recipe, data)), ensure_ascii=False)  # quoted, whatever it holds
    text = template.format(model=model, data=path, recipe=recipe, reward=_entry(recipe, reward), prompts=min(16, count), lr=lr)
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(text, encoding="utf-8")
    how = "learns from its texts" if supervised else f"learns from sampled answers and the reward {reward or 'exact'}"
    return [f"{recipe}: {count} training rows, {how}", f"next: ikusei check {recipe}", f"then: ikusei train {recipe}"]


def _entry(recipe: Path, reward: str | None) -> str:
    if reward is None or ":" not in reward:
        return reward or "exact"
    file, _, function = reward.rpartition(":")
    path = f"{_seen_from(recipe, Path(file))}:{function}" if file.endswith(".py") else reward
    return f"{{path: {json.dumps(path, ensure_ascii=False)}, weight: 1.0}}"


def _seen_from(recipe: Path, file: Path) -> Path:
    """Paths in a recipe start at its folder."""
    here, there = recipe.parent.resolve(), file.resolve()
    return there.relative_to(here) if there.is_relative_to(here) else there
