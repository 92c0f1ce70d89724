"""The picture in the README, drawn from a run of the quickstart.     python docs/picture.py runs/<run> docs/quickstart.svg"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import PercentFormatter

from ikusei.run.read import read_run


def draw(run: Path, picture: Path) -> None:
    record = read_run(run)
    plt.rcParams.update({"svg.hashsalt": "ikusei", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure, (reward, thought, tries) = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
    reward.plot(*record.line("reward"), color="#0f766e")
    reward.set(title="right answers in training", xlabel="step", ylim=(0, 1))
    thought.plot(*record.line("thoughts/empty"), color="#b45309")
    thought.set(title="empty thoughts", xlabel="step", ylim=(0, 1))
    for made, colour in ((record.before, "#9ca3af"), (record.after, "#0f766e")):
        assert made is not None, "a run that was measured before and after"
        table = made.pass_at
        tries.fill_between(list(table), [i.low for i in table.values()], [i.high for i in table.values()], color=colour, alpha=0.2)
        tries.plot(list(table), [i.value for i in table.values()], color=colour, marker="o", markersize=3, label=made.name)
    tries.set_xscale("log", base=2)
    tries.set(title="held-out sums, right in k tries", xlabel="k", ylim=(0, 1.02), xticks=list(table), xticklabels=list(map(str, table)))
    tries.legend(frameon=False, loc="lower right")
    for axes in (reward, thought, tries):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.grid(axis="y", alpha=0.3)
    figure.savefig(picture, metadata={"Date": None})


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
