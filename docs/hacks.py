"""The pictures in guard.md, drawn from the runs of bench/watch.py.     python docs/hacks.py FOLDER docs/hacks.svg"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from ikusei.report.charts import alarms_at
from ikusei.run.read import RunRecord, read_run

RUNS = {
    "tags alone are paid for": "hacks-empty_think-3/1-tags_only",
    "the same with a gate": "hacks-empty_think-3/2-gated",
    "a verifier that computes": "hacks-echo-3/2-grpo",
    "length is paid for": "hacks-length-3",
    "a reward model that likes length": "hacks-learned_proxy-3/3-grpo",
    "four times the learning rate": "collapse-3",
}
REWARD, GOLD, EMPTY, ALARM = "#9ca3af", "#0f766e", "#b45309", "#b91c1c"


def draw(runs: Path, picture: Path) -> None:
    plt.rcParams.update({"svg.hashsalt": "ikusei", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, panels = plt.subplots(2, 3, figsize=(11, 5), layout="constrained")
    for axes, (title, place) in zip(panels.flat, RUNS.items(), strict=True):
        one(axes, title, read_run(runs / place))
    panels[0, 0].legend(frameon=False, loc="center right")
    figure.savefig(picture, metadata={"Date": None})


def one(axes: Axes, title: str, record: RunRecord) -> None:
    """The reward, between 0 and 1 over the run where it is no share; what is right; thoughts that are empty; alarms."""
    steps, reward = record.line("reward")
    low, high = (0.0, 1.0) if max(reward) <= 1 and min(reward) >= 0 else (min(reward), max(reward))
    axes.plot(steps, [(value - low) / (high - low) for value in reward], color=REWARD, label="what is paid for")
    right = record.line("rewards/exact/mean")
    if right[0]:
        axes.plot(*right, color=GOLD, label="what is right (gold)")
    axes.plot(*record.line("thoughts/empty"), color=EMPTY, linewidth=1, linestyle=":", label="thoughts left empty")
    for at in alarms_at(record)[:1]:
        axes.axvline(at, color=ALARM, linewidth=1, linestyle="--", label="first alarm")
    axes.set(title=title, xlabel="step", ylim=(-0.03, 1.03))
    axes.grid(axis="y", alpha=0.3)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
