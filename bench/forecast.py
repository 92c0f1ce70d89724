"""Is the verdict of `ikusei check` right? Each setting's verdict beside what sixty steps of reinforcement learning did.

    python bench/forecast.py FOLDER      about a quarter of an hour; runs go to FOLDER and are not made again; writes bench/forecast.json

The settings and the rule were fixed before the first run: "ready" says that held-out pass@1 rises within 60 steps, every other verdict that
it does not. It rises where the interval of the difference, prompt by prompt (64 prompts × 16 answers, before and after), lies above 0, for
at least two of three seeds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import pyarrow.parquet as pq

from ikusei.intervals import mean_interval

HERE = Path(__file__).parents[1]
SEEDS, STEPS = (0, 1, 2), 60
SHAPE = "hidden_size: 128, intermediate_size: 256, num_hidden_layers: 4, num_attention_heads: 4, num_key_value_heads: 2, head_dim: 32"
FRESH = f"model={{architecture: qwen3, config: {{{SHAPE}}}}}"
GROWN = "grown"  # stands for what recipes/rft.yaml leaves


@dataclass(frozen=True)
class Setting:
    """A recipe, what is overridden, and why it is here."""

    name: str
    why: str
    overrides: tuple[str, ...]


GYM = "task={{name: gym, task: {}, compact: true}}"
SETTINGS = (
    Setting("sums of three digits, G=8", "half-grown", ()),
    Setting("sums of three digits, G=2", "half-grown, few answers", ("train.num_responses=2",)),
    Setting("sums of two digits, G=8", "easier than what it knows", ("task.digits=2",)),
    Setting("sums of four digits, G=8", "never seen", ("task.digits=4",)),
    Setting("sums of three numbers, G=8", "never seen", ("task.terms=3",)),
    Setting("gcd, G=16", "half-grown, guessable", (GYM.format("gcd"), "train.num_responses=16", "sampling.max_tokens=64")),
    Setting("base conversion, G=8", "hopeless", (GYM.format("base_conversion"),)),
    Setting("spelling backward, G=8", "not in its training", (GYM.format("spell_backward"),)),
    Setting("sums after fine-tuning, G=8", "nearly solved", (f"model={GROWN}",)),
    Setting("sums without any training, G=8", "hopeless: no text was seen", (FRESH,)),
)


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    grown = run(folder / "grown", "train", str(HERE / "recipes" / "rft.yaml"), "--folder", str(folder / "grown")) / "final"
    with ThreadPoolExecutor(2) as pool:
        rows = list(pool.map(lambda setting: outcome(setting, folder, grown), SETTINGS))
    right = sum(bool(row["right"]) for row in rows)
    (HERE / "bench" / "forecast.json").write_text(json.dumps(rows, indent=1) + "\n")
    for row in rows:
        gained = f"{row['before']:.3f} → {row['after']:.3f}, rises in {row['rises']} of {len(SEEDS)}"
        print(f"{row['setting']:34} {row['verdict']:18} {gained}  {'right' if row['right'] else 'wrong'}")
    print(f"{right} of {len(rows)} right")


def outcome(setting: Setting, folder: Path, grown: Path) -> dict[str, object]:
    overrides = [each.replace(GROWN, str(grown)) if each == f"model={GROWN}" else each for each in setting.overrides]
    words = [str(HERE / "recipes" / "quickstart.yaml"), *overrides, f"train.steps={STEPS}", "eval.num_samples=16"]
    stem = folder / setting.name.replace(" ", "-").replace(",", "").replace("=", "")
    told = stem.with_suffix(".json")
    if not told.exists():
        told.write_text(ikusei("check", *words, "--json"))
    verdict = json.loads(told.read_text())["verdict"]
    runs = [run(Path(f"{stem}-{seed}"), "train", *words, f"seed={seed}", "--folder", f"{stem}-{seed}") for seed in SEEDS]
    gains = [gain(each) for each in runs]
    rises = sum(low > 0 for _, _, low in gains)
    return {
        "setting": setting.name, "why": setting.why, "verdict": verdict["name"], "said": verdict["why"],
        "before": fmean(before for before, _, _ in gains), "after": fmean(after for _, after, _ in gains),
        "rises": rises, "right": (verdict["name"] == "ready") == (rises >= 2),
    }  # fmt: skip


def run(folder: Path, *words: str) -> Path:
    if not (folder / "summary.json").exists():
        ikusei(*words)
    return folder


def ikusei(*words: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "dumb"}
    done = subprocess.run(
        [sys.executable, "-c", "from ikusei.cli.main import main; main()", *words], capture_output=True, text=True, env=environment
    )
    if done.returncode:
        raise RuntimeError(f"{words}: {done.stdout[-1000:]}{done.stderr[-2000:]}")
    return done.stdout


def gain(run: Path) -> tuple[float, float, float]:
    """pass@1 before and after, and the lower end of the 95 % interval of their difference over prompts."""
    before, after = (by_prompt(next(run.glob(f"eval/{name}@*/samples.parquet"))) for name in ("before", "after"))
    differences = [after[prompt] - before[prompt] for prompt in before]
    return fmean(before.values()), fmean(after.values()), mean_interval(differences).low


def by_prompt(table: Path) -> dict[str, float]:
    found = defaultdict(list)
    for row in pq.read_table(table).to_pylist():
        found[row["prompt_id"]].append(float(row["correct"]))
    return {prompt: fmean(each) for prompt, each in found.items()}


if __name__ == "__main__":
    main()
