"""Measure Ikusei against TRL, and both against the machine.

    python bench/vs_trl.py                  every workload, and the time to target: an hour and a half on two quiet cores
    python bench/vs_trl.py W1 W3 T          these alone; the others keep their numbers
    python bench/vs_trl.py --quick W4       3 steps, and TRL as it was found fastest before

Each side runs in a process of its own on the same weights, rows and rewards. They take turns step by step, so that whatever else the
machine does falls on both. TRL is tried in a few settings first, and the fastest one is measured. Results go into bench/results.json and
docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from dataclasses import replace
from datetime import date
from pathlib import Path

import page
import target
from compare import compare
from sides import ask_once
from workloads import WORKLOADS

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
QUICK_STEPS = 3


def main() -> None:
    asked = read_arguments()
    names = asked.names or [*WORKLOADS, "T"]
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        found |= {"machine": ask_once("machine:serve", (), folder / "machine.log"), "commit": commit(), "date": str(date.today())}
        for name in names:
            print(f"{name} ...", flush=True)
            before = found.get(name) if asked.quick else None
            if name == "T":
                found[name] = target.measure(folder, before)
            else:
                work = replace(WORKLOADS[name], **({"steps": asked.steps} if asked.steps else {}))
                found[name] = compare(work, folder, found["machine"], before)
            found[name]["commit"] = found["commit"]
            print(page.line(name, found[name]), flush=True)
            RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    page.write(found)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Ikusei against TRL")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(WORKLOADS)}, T (default: all)")
    parser.add_argument("--steps", type=int, help="measured steps")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STEPS} steps, and TRL as it was found fastest the last time")
    asked = parser.parse_args()
    if unknown := set(asked.names) - {*WORKLOADS, "T"}:
        parser.error(f"got {', '.join(sorted(unknown))}; allowed: {', '.join(WORKLOADS)}, T")
    if asked.quick and not asked.steps:
        asked.steps = QUICK_STEPS
    return asked


def commit() -> str:
    """The commit, and a + where the checkout differs from it."""
    said = subprocess.run(["git", "describe", "--always", "--dirty=+"], cwd=HERE, capture_output=True, text=True, check=True)
    return said.stdout.strip()


if __name__ == "__main__":
    main()
