"""A whole run that takes a second: a tiny model in a folder, sums of two digits, and a reward that now and then fails.

The reward raises on some answers and says NaN of others, so that groups lose responses, some are not kept, and refill rounds happen; a KL
term keeps all others.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import worlds
from rich.console import Console

from ikusei.backends.local import export
from ikusei.journey import Outcome, resume, train
from ikusei.run.folder import is_wall_clock
from ikusei.run.tables import read_table

REWARD = """
def marks(prompt, response, **columns):
    first = ord(response[0]) if response else 0
    if first % 5 == 0:
        raise RuntimeError("a fifth of all answers")
    if first % 11 == 1:
        return float("nan")
    return {"digits": float(sum(c.isdigit() for c in response)), "short": -0.1 * len(response)}
"""
RECIPE = """
name: tiny
seed: 3
model: model
task: {name: arithmetic, digits: 1}
rewards: ["marks.py:marks", {path: exact, gold: true}]
algorithm: {name: grpo, kl_coef: 0.1, clip_high: 0.28}
sampling: {temperature: 0.9, max_tokens: 12, stop: ["7", "e", "k", "ま"], stop_ids: [40, 41, 42, 43, 44]}
train: {steps: 24, prompts_per_step: 3, num_responses: 2, refill_rounds: 1, lr: 1e-3, save_every: 2, max_failures: 0.95}
eval: {num_prompts: 3, num_samples: 2}
"""


def write_recipe(folder: Path) -> Path:
    """The recipe, with the model and the reward that it names beside it."""
    policy = worlds.make_talker()
    export(policy.causal.model, policy.tokenizer, folder / "model")
    (folder / "marks.py").write_text(REWARD)
    (folder / "tiny.yaml").write_text(RECIPE)
    return folder / "tiny.yaml"


def run_here(recipe: Path, folder: Path, *overrides: str) -> Outcome:
    """The run in this process, told to nobody."""
    return train(recipe, *overrides, folder=folder, console=Console(file=io.StringIO()))


def resume_here(folder: Path) -> Outcome:
    return resume(folder, console=Console(file=io.StringIO()))


def start(*words: str) -> subprocess.Popen[str]:
    """`ikusei train ...` as a person would start it, in a process group of its own, as a terminal makes one."""
    program = [sys.executable, "-c", "from ikusei.cli import main; main()"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*program, "train", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, env=environment
    )


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl without what a clock measured."""
    log = folder / "metrics.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [{name: value for name, value in row.items() if not is_wall_clock(name)} for row in rows]


def responses(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of every table of responses, by the name of its file."""
    return {table.name: read_table(table) for table in sorted((folder / "responses").glob("*.parquet"))}


def evaluations(folder: Path) -> dict[str, Any]:
    """Figures and samples of every evaluation."""
    found = {}
    for each in sorted((folder / "eval").iterdir()):
        results = json.loads((each / "results.json").read_text())
        results.pop("seconds")
        found[each.name] = (results, read_table(each / "samples.parquet"))
    return found
