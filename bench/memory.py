"""Peak memory by method and by switch, at a fixed model: what to turn on where a run does not fit.

    python bench/memory.py        some minutes; writes docs/memory.md

Each run is `ikusei train` in a process of its own, two steps of a made model of 20 million parameters on rows of 64 + 192 tokens, 32
answers a step. The peak is that of the training process, libraries included; what it holds with the libraries and the model alone is
given apart, and what a method needs is what comes beyond.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from data import make_model
from workloads import MIDDLE

DOCS = Path(__file__).parents[1] / "docs" / "memory.md"
PROMPT, ANSWER, ROWS, STEPS = 64, 192, 32, 2
ONLINE = {"prompts_per_step": 4, "num_responses": 8}
METHODS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {  # the data, the algorithm, and more of the recipe
    "SFT": ("texts", {"name": "lm"}, {}),
    "DPO": ("pairs", {"name": "dpo"}, {}),
    "reward model": ("pairs", {"name": "bradley_terry"}, {}),
    "GRPO": ("prompts", {"name": "grpo"}, {}),
    "GRPO, KL term": ("prompts", {"name": "grpo", "kl_coef": 0.1}, {}),
    "PPO": ("prompts", {"name": "ppo"}, {}),
}
SWITCHES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "8-bit moments": {"policy": {"optimizer": "adamw_8bit"}},
    "parts of 1,024 tokens": {"train": {"tokens_per_part": 1024}},
    "checkpointing": {"policy": {"gradient_checkpointing": True}},
    "LoRA, rank 16": {"policy": {"lora": {"rank": 16}}},
    "LoRA in 4 bits": {"policy": {"lora": {"rank": 16, "bits": 4}}},
    "LoRA in 4 bits, checkpointing, small parts": {
        "train": {"tokens_per_part": 1024}, "policy": {"gradient_checkpointing": True, "lora": {"rank": 16, "bits": 4}},
    },
}  # fmt: skip
CUTE = "def cute(prompt, response, **columns):\n    return float(len(response) % 7)\n"


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_model(MIDDLE, False, folder / "model")
        make_model(MIDDLE, True, folder / "reward")
        write_rows(folder)
        floor = peak_of([sys.executable, "-c", LOADED, str(folder / "model")], folder)
        found = {}
        for method in METHODS:
            for switch in SWITCHES:
                found[method, switch] = measured(folder, method, switch)
                print(f"{method:14} {switch:22} {found[method, switch]:8.0f} MiB", flush=True)
    DOCS.write_text(page(floor, found))


LOADED = """
import sys
import ikusei.journey
from ikusei.loops.measure import peak_memory_mb
from ikusei.models.load import load_model
model = load_model(sys.argv[1])
print(peak_memory_mb())
"""


def peak_of(command: list[str], folder: Path) -> float:
    return float(subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, env=quiet()).stdout.split()[-1])


def measured(folder: Path, method: str, switch: str) -> float:
    """MiB."""
    data, algorithm, more = METHODS[method]
    online = data == "prompts"
    recipe = {
        "model": "model", "task": {"name": "files", "path": f"{data}.jsonl"}, "algorithm": algorithm, "eval": {"num_prompts": 0},
        "rewards": [{"path": "cute.py:cute"}] if online else [], "sampling": {"max_tokens": ANSWER},
        "train": {"steps": STEPS, "lr": 1e-5, "tokens_per_part": 4096, **(ONLINE if online else {"examples_per_step": 32})},
        **more,
    }  # fmt: skip
    for section, keys in SWITCHES[switch].items():
        recipe[section] = {**recipe.get(section, {}), **keys}
    (folder / "recipe.yaml").write_text(json.dumps(recipe))  # JSON is YAML
    run = folder / "runs" / f"{method} {switch}".replace(" ", "_").replace(",", "")
    command = [str(Path(sys.executable).parent / "ikusei"), "train", "recipe.yaml", "--folder", str(run)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=quiet())
    if done.returncode:
        raise RuntimeError(f"{method}, {switch}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["memory/peak_mb"]


def quiet() -> dict[str, str]:
    return {**os.environ, "TERM": "dumb"}


def write_rows(folder: Path) -> None:
    chance = random.Random(0)
    said = lambda count: " ".join(str(chance.randrange(2, MIDDLE.words)) for _ in range(count))  # noqa: E731
    rows = {
        "texts": [{"prompt": said(PROMPT - 8), "completion": said(ANSWER)} for _ in range(ROWS)],
        "pairs": [{"prompt": said(PROMPT - 8), "chosen": said(ANSWER), "rejected": said(ANSWER)} for _ in range(ROWS)],
        "prompts": [{"prompt": said(PROMPT - 8)} for _ in range(ROWS)],
    }
    for name, each in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in each))
    (folder / "cute.py").write_text(CUTE)


def page(floor: float, found: dict[tuple[str, str], float]) -> str:
    table = ["| | " + " | ".join(SWITCHES) + " |", "|---" * (len(SWITCHES) + 1) + "|"]
    for method in METHODS:
        table.append(f"| {method} | " + " | ".join(f"{found[method, switch] - floor:,.0f}" for switch in SWITCHES) + " |")
    return TEXT.format(floor=floor, prompt=PROMPT, answer=ANSWER, rows=ROWS, date=date.today(), table="\n".join(table))


TEXT = """# Memory

What a run needs beyond the libraries and the model's weights ({floor:,.0f} MiB), in MiB at its peak, by method and by switch: a Qwen3 of
19.6 million parameters in fp32 (75 MiB), rows of {prompt} + {answer} tokens, {rows} answers a step, updates in parts of 4,096 tokens unless
said. Measured {date} on two cores with `python bench/memory.py`.

{table}

- **Weights trained whole** cost four times their size: themselves, gradients, two moments. With adapters three of the four are those of the
  adapters alone, and a reference costs nothing, for it is the model with its adapters switched off. In 4 bits the frozen matrices take an
  eighth of fp32; embeddings and head stay as they are.
- **Activations** grow with the tokens of a part (`train.tokens_per_part`), which changes no number of the result. With
  `policy.gradient_checkpointing` they are those of one layer, for a third more time.
- **A prompt is laid out once** however many answers it has, and logits exist for a block of words at a time.
- **Moments**: `policy.optimizer: adamw_8bit` keeps them in 8 bits; `policy.offload_optimizer: true` keeps them in the CPU's memory, which on
  a CPU is where they are.
- With `policy.precision: bf16` what is frozen under adapters is held in bf16.
- An export with adapters holds the weights a second time, for a moment.
"""


if __name__ == "__main__":
    main()
