"""Do two checkouts compute the same? Each carries out the recipes, one after the other on this machine, and every number of their runs is
compared to the last digit: metrics of each step, evaluations, the responses that were sampled, and the weights.

    python bench/same_figures.py OTHER/src [RECIPE ...]           OTHER: another checkout of this repository, 0.1 or later

Clocks and memory are left out, and so are keys that only one side has, which are listed.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[1]
CLOCKS = ("time/", "seconds", "memory/", "created", "format")
ONLINE = ["train.steps=4", "eval.num_prompts=8", "eval.num_samples=8", "watch.gold_every=2"]
ROWS = ["train.steps=4", "eval.num_prompts=8", "eval.num_samples=4"]
RECIPES: dict[str, list[str]] = {  # one of each family, shortened
    "quickstart": ["train.steps=12", "eval.num_prompts=16"],
    "rloo": ONLINE,
    "dapo": [*ONLINE, "train.refill_rounds=2"],
    "ppo": ONLINE,
    "online_dpo": ONLINE,
    "kto": ROWS,
    "tr_dpo": ROWS,
    "instructgpt": ["train.steps=3", "collect.num_prompts=32", "eval.num_prompts=8", "eval.num_samples=4"],
    "continue": ROWS,
}


def main(other: str, names: list[str]) -> int:
    different = 0
    for name in names or RECIPES:
        with tempfile.TemporaryDirectory() as folder:
            sides = [run(src, name, Path(folder) / f"side{n}") for n, src in enumerate((other, str(HERE / "src")))]
        alone = sorted(sides[0].keys() ^ sides[1].keys())
        unequal = [key for key in sides[0].keys() & sides[1].keys() if sides[0][key] != sides[1][key]]
        different += bool(unequal)
        print(
            f"{name}: {len(sides[0].keys() & sides[1].keys())} figures, {len(unequal)} differ", *(f"(one side: {each})" for each in alone)
        )
        for key in sorted(unequal)[:6]:
            print(f"    {key}: {sides[0][key]} against {sides[1][key]}")
    return different


def run(src: str, name: str, folder: Path) -> dict[str, Any]:
    """Every figure of a recipe's run, by where it stands."""
    recipe = HERE / "recipes" / f"{name}.yaml"
    code = "import sys, ikusei; ikusei.train(*sys.argv[2:], folder=__import__('pathlib').Path(sys.argv[1]))"
    words = [sys.executable, "-c", code, str(folder), str(recipe), *RECIPES.get(name, ROWS)]
    done = subprocess.run(words, env={**os.environ, "PYTHONPATH": src}, cwd=HERE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(figures(folder))


def figures(folder: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow.parquet as pq

    for file in sorted(folder.rglob("*")):
        place = file.relative_to(folder).as_posix()
        if file.name == "metrics.jsonl":
            for line in file.read_text().splitlines():
                row = json.loads(line)
                yield from ((f"{place}:{row['step']}:{key}", value) for key, value in row.items() if not key.startswith(CLOCKS))
        elif file.name in ("results.json", "summary.json"):
            yield from flat(place, json.loads(file.read_text()))
        elif file.suffix == ".parquet":
            yield from ((f"{place}:{name}", column) for name, column in pq.read_table(file).to_pydict().items())
        elif file.suffix == ".safetensors" and "final" in place:
            yield place, hashlib.sha256(file.read_bytes()).hexdigest()


def flat(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inside in value.items():
            if not key.startswith(CLOCKS):
                yield from flat(f"{place}:{key}", inside)
    else:
        yield place, value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
