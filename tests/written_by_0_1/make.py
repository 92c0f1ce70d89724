"""Writes this folder anew, with the version of ikusei whose commit README.md names; from inside it: `python make.py`.

Only recipes and the command line are used. Afterwards what nothing reads is dropped (checkpoints of finished runs, reports), and the paths
in resolved recipes and lens.*, which are absolute where they were written, are made relative to the file that they stand in.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
FINISHED = ("reward-model", "online", "dpo", "collection", "road")
INTERRUPTED = {"interrupted": 4, "interrupted-ppo": 4, "interrupted-dpo": 4, "interrupted-collection": 3, "interrupted-road": 4}  # at step
WATCHED = {"interrupted-road": "interrupted-road/4-ppo"}


def write_data() -> None:
    asked = [f"{n}+{n % 3}=" for n in range(16)]
    rows: dict[str, list[dict[str, object]]] = {
        "pairs": [{"prompt": each, "chosen": f" {n}", "rejected": f"no {n}"} for n, each in enumerate(asked)],
        "rankings": [{"prompt": each, "responses": [f" {n}", "x", f"no {n}"], "ranking": [1, 3, 3]} for n, each in enumerate(asked)],
        "answers": [{"prompt": each, "completion": f" {n}"} for n, each in enumerate(asked)],
    }
    for name, each in rows.items():
        (HERE / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in each))


def start(name: str, folder: str) -> subprocess.Popen[bytes]:
    program = [sys.executable, "-c", "from ikusei.cli import main; main()", "train", f"recipes/{name}.yaml", "--folder", folder]
    return subprocess.Popen(program, cwd=HERE, env={**os.environ, "OMP_NUM_THREADS": "1"})


def interrupt(name: str, step: int) -> None:
    """Ctrl-C a moment after a step."""
    log = HERE / WATCHED.get(name, name) / "metrics.jsonl"
    running = start(name, name)
    while running.poll() is None and (not log.exists() or len(log.read_text().splitlines()) < step):
        time.sleep(0.001)
    running.send_signal(signal.SIGINT)
    assert running.wait() == 130, f"{name} came to its end; give it more steps"


def tidy(run: Path) -> None:
    """Drops what is only looked at, and writes relative paths."""
    for report in run.rglob("report.html"):
        report.unlink()
    for logs in [path for path in run.rglob("logs") if not any(path.iterdir())]:
        logs.rmdir()
    for about in [path for path in run.rglob("run.json") if json.loads(path.read_text())["status"] == "finished"]:
        for checkpoint in about.parent.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    for checkpoint in sorted(run.rglob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))[:-1]:
        shutil.rmtree(checkpoint)
    for written in [*run.rglob("recipe.yaml"), *run.rglob("lens.*")]:
        up = "/".join([".."] * len(written.parent.relative_to(HERE).parts))
        written.write_text(written.read_text().replace(str(HERE.resolve()), up))


def main() -> None:
    for old in ("model", *FINISHED, *INTERRUPTED):
        shutil.rmtree(HERE / old, ignore_errors=True)
    write_data()
    assert start("model", "grown").wait() == 0
    (HERE / "grown/final").rename(HERE / "model")
    shutil.rmtree(HERE / "grown")
    for name in FINISHED:
        assert start(name, name).wait() == 0, name
    for name, step in INTERRUPTED.items():
        interrupt(name, step)
    for name in (*FINISHED, *INTERRUPTED):
        tidy(HERE / name)


if __name__ == "__main__":
    main()
