"""Peak memory by method and by switch, at a fixed model: what to turn on where a run does not fit.

    python bench/memory.py        half an hour; writes docs/memory.md

Each run is `ikusei train` in a process of its own, two steps of a made model of 98 million parameters. What is measured is the memory that
the process has asked for and holds (RssAnon; on a CPU files that are mapped come and go), at its highest in the second step, which has
everything that a step can have, less what a process holds that has loaded the libraries alone.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from data import make_model
from workloads import qwen3

DOCS = Path(__file__).parents[1] / "docs" / "memory.md"
BIG = qwen3(hidden=768, layers=12, heads=12, head_dim=64, inner=2560, words=8_000)  # 98 M
PROMPT, ANSWER, ROWS, STEPS = 64, 64, 8, 2
PART, SMALL_PART = 1024, 256
ONLINE = {"prompts_per_step": 2, "num_responses": 4}
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
    "micro-batches of 256 tokens": {"train": {"tokens_per_microbatch": SMALL_PART}},
    "checkpointing": {"policy": {"gradient_checkpointing": True}},
    "LoRA, rank 16": {"policy": {"lora": {"rank": 16}}},
    "LoRA in 4 bits": {"policy": {"lora": {"rank": 16, "bits": 4}}},
    "LoRA in 4 bits, checkpointing, small micro-batches": {
        "train": {"tokens_per_microbatch": SMALL_PART}, "policy": {"gradient_checkpointing": True, "lora": {"rank": 16, "bits": 4}},
    },
}  # fmt: skip
CUTE = "def cute(prompt, response, **columns):\n    return float(len(response) % 7)\n"


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_model(BIG, False, folder / "model")
        write_rows(folder)
        floor = of_libraries()
        found = {}
        for method in METHODS:
            for switch in SWITCHES:
                found[method, switch] = measured(folder, method, switch)
                print(f"{method:14} {switch:22} {found[method, switch]:8.0f} MiB", flush=True)
        weights = (folder / "model" / "model.safetensors").stat().st_size / 2**20
    DOCS.write_text(page(floor, weights, found))


LIBRARIES = "import sys, ikusei.pipeline.training_run, peft, bitsandbytes; print('loaded', flush=True); sys.stdin.read()"


def of_libraries() -> float:
    """MiB."""
    with subprocess.Popen([sys.executable, "-c", LIBRARIES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None, "a pipe"
        assert process.stdout.readline(), "the libraries could not be loaded"
        held = held_by(process.pid)
        process.communicate("")
    return held


def held_by(pid: int) -> float:
    """MiB that a process holds of its own; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon:")), 0.0)


def measured(folder: Path, method: str, switch: str) -> float:
    """MiB."""
    data, algorithm, more = METHODS[method]
    online = data == "prompts"
    recipe = {
        "model": "model", "task": {"name": "files", "path": f"{data}.jsonl"}, "algorithm": algorithm, "eval": {"num_prompts": 0},
        "rewards": [{"path": "cute.py:cute"}] if online else [], "sampling": {"max_tokens": ANSWER},
        "train": {"steps": STEPS, "lr": 1e-5, "tokens_per_microbatch": PART, **(ONLINE if online else {"examples_per_step": ROWS})},
        **more,
    }  # fmt: skip
    for section, keys in SWITCHES[switch].items():
        recipe[section] = {**recipe.get(section, {}), **keys}
    (folder / "recipe.yaml").write_text(json.dumps(recipe))  # JSON is YAML
    run = folder / "runs" / f"{method} {switch}".replace(" ", "_").replace(",", "")
    command = [str(Path(sys.executable).parent / "ikusei"), "train", "recipe.yaml", "--folder", str(run)]
    log = folder / "log"
    with log.open("w") as said, subprocess.Popen(command, cwd=folder, stdout=said, stderr=said, env=quiet()) as process:
        highest = 0.0
        while process.poll() is None:
            rows = (run / "metrics.jsonl").read_text().count("\n") if (run / "metrics.jsonl").exists() else 0
            if rows == 1:
                highest = max(highest, held_by(process.pid))
            time.sleep(0.005)
    if process.returncode or not highest:
        raise RuntimeError(f"{method}, {switch}: {log.read_text()[-2000:]}")
    return highest


def quiet() -> dict[str, str]:
    return {**os.environ, "TERM": "dumb"}


def write_rows(folder: Path) -> None:
    chance = random.Random(0)
    said = lambda count: " ".join(str(chance.randrange(2, BIG.words)) for _ in range(count))  # noqa: E731
    rows = {
        "texts": [{"prompt": said(PROMPT - 8), "completion": said(ANSWER)} for _ in range(ROWS)],
        "pairs": [{"prompt": said(PROMPT - 8), "chosen": said(ANSWER), "rejected": said(ANSWER)} for _ in range(ROWS)],
        "prompts": [{"prompt": said(PROMPT - 8)} for _ in range(ROWS)],
    }
    for name, each in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in each))
    (folder / "cute.py").write_text(CUTE)


def page(floor: float, weights: float, found: dict[tuple[str, str], float]) -> str:
    table = ["| | " + " | ".join(SWITCHES) + " |", "|---" * (len(SWITCHES) + 1) + "|"]
    for method in METHODS:
        table.append(f"| {method} | " + " | ".join(f"{found[method, switch] - floor:,.0f}" for switch in SWITCHES) + " |")
    return TEXT.format(
        floor=floor,
        million=weights * 2**20 / 4e6,
        part=PART,
        weights=weights,
        prompt=PROMPT,
        answer=ANSWER,
        rows=ROWS,
        date=date.today(),
        table="\n".join(table),
    )


TEXT = """# Memory

What a run holds at its highest beyond the libraries ({floor:,.0f} MiB), in MiB, by method and by switch: a Qwen3 of {million:.0f} million
parameters, {weights:,.0f} MiB in fp32; rows of {prompt} + {answer} tokens, {rows} answers a step, updates in micro-batches of
{part:,} tokens unless said. Measured {date} on two cores with `python bench/memory.py`.

{table}

- **Weights trained whole** cost four times their size: themselves, gradients, two moments. With adapters three of the four are those of the
  adapters alone, and a reference costs nothing, for it is the model with its adapters switched off.
- **In 4 bits** the frozen matrices take an eighth of fp32; embeddings and head stay as they are. On a CPU that shows only with
  checkpointing and small micro-batches: without them as much is held again (where was not found; each matrix is unpacked for its product).
- **Activations** grow with the tokens of a micro-batch (`train.tokens_per_microbatch`), which changes no number of the result. With
  `policy.gradient_checkpointing` they are those of one layer, for a third more time.
- **A prompt is laid out once** however many answers it has, and logits exist for a block of the vocabulary at a time.
- **Moments**: `policy.optimizer: adamw_8bit` keeps them in 8 bits; `policy.offload_optimizer: true` keeps them in the CPU's memory, which
  on a CPU is where they are.
- With `policy.precision: bf16` what is frozen under adapters is held in bf16.
- Saving a model with adapters makes it once more, whole and in fp32, in the CPU's memory; that is not in the table.
"""


if __name__ == "__main__":
    main()
