"""Lines over several seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def over_seeds(axes: Axes, x: Sequence[float], seeds: Sequence[Sequence[float]], colour: str, label: str | None = None) -> None:
    """The mean of the seeds as a line, the least and the largest as a band. `seeds` is [seeds][len(x)]."""
    values = np.asarray(seeds, dtype=float)
    axes.plot(x, values.mean(0), color=colour, linewidth=1.6, marker="o", markersize=3, label=label)
    axes.fill_between(x, values.min(0), values.max(0), color=colour, alpha=0.18, linewidth=0)
