"""Whole runs that take a second: a tiny model in a folder, sums of two digits, and a reward that now and then fails.

The reward raises on some answers and says NaN of others, so that groups lose responses, some are not kept, and refill rounds happen; a KL
term keeps all others. `KINDS` are runs of other methods, from pairs, rankings and labels in files, with a reward model and a critic beside
them: each keeps something of its own that a resumed run must take up again.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import worlds
from rich.console import Console
from safetensors.torch import load_file

from ikusei.backends.export import export
from ikusei.models.load import load_reward_model
from ikusei.pipeline.outcome import Outcome
from ikusei.pipeline.train import resume, train
from ikusei.run.folder import Run, is_wall_clock
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
watch: {gold_every: 5}
"""


SUPERVISED = """
model: model
task: {{name: files, path: {data}, test_share: 0.2}}
algorithm: {algorithm}
sampling: {{max_tokens: 6, stop_ids: [40, 41, 42, 43, 44]}}
train: {{steps: 9, examples_per_step: 4, lr: 1e-3, save_every: 2, {more}}}
eval: {{num_prompts: 2, num_samples: 2}}
{rest}
"""
ONLINE = """
model: model
task: {{name: arithmetic, digits: 1}}
rewards: {rewards}
algorithm: {algorithm}
sampling: {{max_tokens: 8, stop: ["7", "e", "k", "ま"], stop_ids: [40, 41, 42, 43, 44]}}
train: {{steps: 9, prompts_per_step: 3, num_responses: 2, lr: 1e-3, save_every: 2, max_failures: 0.95, {more}}}
eval: {{num_prompts: 2, num_samples: 2}}
{rest}
"""
FILTERED = {"algorithm": "dpo", "more": "filtered: true", "rest": 'rewards: ["calm.py:calm"]'}
REPLAYED = "replay_task: {name: files, path: texts.jsonl, test_share: 0.0}"
KINDS = {
    "dpo, stored reference": SUPERVISED.format(data="pairs.jsonl", algorithm="dpo", more="", rest=""),
    "tr-dpo": SUPERVISED.format(data="pairs.jsonl", algorithm="dpo", more="reference: {every: 3, mix: 0.6}", rest=""),
    "tr-dpo, adapters": SUPERVISED.format(
        data="pairs.jsonl", algorithm="dpo", more="reference: {every: 3}", rest="policy: {lora: {rank: 4}}"
    ),
    "filtered dpo": SUPERVISED.format(data="pairs.jsonl", **FILTERED),
    "kto": SUPERVISED.format(data="labels.jsonl", algorithm="kto", more="reference: {every: 4}", rest=""),
    "reward model": SUPERVISED.format(
        data="rankings.jsonl", algorithm="bradley_terry", more="normalise: {num_prompts: 3, num_samples: 2}", rest=""
    ),
    "ppo": ONLINE.format(
        rewards='["calm.py:calm"]', algorithm="{name: ppo, target_kl: 1.0, horizon: 50}",
        more="updates_per_step: 2, replay: {examples: 2, weight: 0.5}", rest=REPLAYED,
    ),
    "ppo, learned reward, separate critic": ONLINE.format(
        rewards="[{path: learned, settings: {models: [judge, model-judge], combine: worst}}, {path: calm.py:calm, weight: 0.1}]",
        algorithm="ppo", more="", rest="policy: {critic: judge}",
    ),
    "grpo, adapters": ONLINE.format(
        rewards='["calm.py:calm"]', algorithm="{name: grpo, kl_coef: 0.1, target_entropy: 2.0}", more="importance_cap: 2.0",
        rest="policy: {lora: {rank: 4}}",
    ),
    "collecting": """
model: model
task: {name: arithmetic, digits: 1}
rewards: ["calm.py:calm"]
sampling: {max_tokens: 8, stop: ["7", "e", "k", "ま"], stop_ids: [40, 41, 42, 43, 44]}
collect: {kind: rankings, num_prompts: 40, num_responses: 4, prompts_per_step: 4}
""",
}  # fmt: skip
ROAD = """
model: model
task: {name: arithmetic, digits: 1}
sampling: {max_tokens: 8, stop: ["7", "e", "k", "ま"], stop_ids: [40, 41, 42, 43, 44]}
eval: {num_prompts: 2, num_samples: 2}
stages:
  - name: sft
    task: {name: files, path: answers.jsonl}
    algorithm: lm
    train: {steps: 3, examples_per_step: 4, lr: 1e-3}
  - name: ranked
    rewards: ["calm.py:calm"]
    collect: {kind: rankings, num_prompts: 64, num_responses: 4, prompts_per_step: 4}
  - name: judge
    task: {name: files, path: "stage:ranked"}
    algorithm: bradley_terry
    train: {steps: 6, examples_per_step: 4, lr: 1e-3, save_every: 2, normalise: {num_prompts: 4, num_samples: 2}}
  - name: ppo
    rewards: [{path: learned, settings: {model: "stage:judge"}}, {path: calm.py:calm, gold: true}]
    policy: {critic: "stage:judge"}
    algorithm: ppo
    train: {steps: 6, prompts_per_step: 3, num_responses: 2, lr: 1e-3, save_every: 2}
lens: {task: cat_lover, settings: {num_prompts: 2, num_samples: 2, max_tokens: 4}}
"""


def write_world(folder: Path) -> Path:
    """What the recipes of `KINDS` name: a model, two reward models, a reward that never fails, and rows of every shape."""
    policy = worlds.make_talker()
    export(policy.causal.model, policy.tokenizer, folder / "model")
    for seed, name in enumerate(("judge", "model-judge")):
        judge = load_reward_model(str(folder / "model"), seed)
        judge.config.pad_token_id = policy.tokenizer.pad_token_id
        judge.config.reward_bias = 0.25 - seed
        export(judge, policy.tokenizer, folder / name)
    (folder / "calm.py").write_text(
        "def calm(prompt, response, **columns):\n    return 0.6 * response.startswith(' ') + sum(map(ord, response)) % 7 / 7\n"
    )
    asked = [f"{n}+{n % 3}=" for n in range(24)]
    rows: dict[str, list[dict[str, Any]]] = {
        "pairs": [{"prompt": each, "chosen": f" {n}", "rejected": f"no {n}"} for n, each in enumerate(asked)],
        "rankings": [{"prompt": each, "responses": [f" {n}", "x", f"no {n}"], "ranking": [1, 3, 3]} for n, each in enumerate(asked)],
        "labels": [{"prompt": each, "completion": f" {n}", "label": n % 3 == 0} for n, each in enumerate(asked)],
        "answers": [{"prompt": each, "completion": f" {n}"} for n, each in enumerate(asked)],
        "texts": [{"text": f"ねこは{n}ひき。"} for n in range(12)],
    }
    for name, each in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in each))
    return folder


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
    program = [sys.executable, "-c", "from ikusei.cli.main import main; main()"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*program, "train", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, env=environment
    )


def end_here(recipe: Path, folder: Path, watched: Path, steps: int, how: int = signal.SIGKILL) -> int | None:
    """The run in a process forked from this one, which is faster than a new one, and ended by a signal a little after `watched`, which is
    `folder` or a stage in it, has so many steps. Its exit code."""
    process = multiprocessing.get_context("fork").Process(target=run_here, args=(recipe, folder))
    process.start()
    while process.is_alive() and len(metrics(watched)) < steps:
        time.sleep(0.001)
    time.sleep(random.random() * 0.03)  # anywhere
    if process.pid is not None and process.is_alive():
        os.kill(process.pid, how)
    process.join()
    return process.exitcode


def left(folder: Path) -> dict[str, Any]:
    """All that a run leaves but for what a clock measured: weights, moments, critic, references, states, rows, answers, measurements."""
    found: dict[str, Any] = {"metrics": metrics(folder), "responses": responses(folder)}
    found["evaluations"] = evaluations(folder) if (folder / "eval").is_dir() else {}
    latest = Run(folder, 0.0).latest_checkpoint()
    found["state"] = latest[2] if latest else None
    for place in [folder / "final", *([latest[1], latest[1] / "reference"] if latest else [])]:
        for file in sorted(place.glob("*")):
            name = str(file.relative_to(folder))
            if file.suffix == ".safetensors":
                found |= {f"{name}/{key}": tensor for key, tensor in load_file(file).items()}
            elif file.suffix == ".pt":
                found |= flat(name, torch.load(file, weights_only=True))
            elif file.name == "config.json":
                found[name] = json.loads(file.read_text())
    if (folder / "data.jsonl").exists():
        found["data"] = (folder / "data.jsonl").read_text()
    if (folder / "reference.parquet").exists():
        found["reference"] = read_table(folder / "reference.parquet")
    return found


def flat(name: str, value: Any) -> dict[str, Any]:
    """Nested mappings and lists as one mapping, so that each tensor has a name."""
    if isinstance(value, (Mapping, list, tuple)):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        return {key: each for inner, thing in items for key, each in flat(f"{name}/{inner}", thing).items()}
    return {name: value}


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The names of what is not equal to the bit."""
    same = lambda a, b: torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b  # noqa: E731
    return [name for name in sorted({*one, *other}) if name not in one or name not in other or not same(one[name], other[name])]


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl without what a clock measured. A line that is just being written does not count yet."""
    log = folder / "metrics.jsonl"
    rows = [json.loads(line) for line in log.read_text().split("\n")[:-1]] if log.exists() else []
    return [{name: value for name, value in row.items() if not is_wall_clock(name)} for row in rows]


def responses(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of every table of responses, by the name of its file."""
    return {table.name: read_table(table) for table in sorted((folder / "responses").glob("*.parquet"))}


def evaluations(folder: Path) -> dict[str, Any]:
    """Figures and samples of every evaluation."""
    found = {}
    for each in sorted((folder / "eval").iterdir()):
        results = json.loads((each / "results.json").read_text())
        results.pop("seconds", None)
        found[each.name] = (results, read_table(each / "samples.parquet"))
    return found
