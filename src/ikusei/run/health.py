"""Healthy ranges of metrics: the display colours by them, and the report shades them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Judgement = Literal["healthy", "watch", "bad"]


@dataclass(frozen=True, slots=True)
class Range:
    """Healthy from `low` to `high`; `bad` beyond which to stop and look; `from_step` where a run needs time to get there."""

    low: float
    high: float
    bad: float = float("inf")
    from_step: int = 0
    note: str = ""


HEALTHY = {
    "reward": Range(0.15, float("inf"), from_step=20, note="above 0.15 within 20 steps"),
    "completions/clipped_ratio": Range(0.0, 0.3, bad=0.8, note="below 30%"),
    "groups/no_signal": Range(0.0, 0.8, note="below 80%"),
    "kl": Range(0.0, 0.5, bad=2.0, note="below 0.5"),
    "sampling/logp_gap": Range(0.0, 0.1, bad=1.0, note="below 0.1"),
}
# Small models are healthy outside of these, so they are shaded in charts and judge nobody.
FOR_LARGE_MODELS = {"entropy": Range(0.05, 0.5, note="0.05 to 0.5 in large models")}


def judge(metric: str, value: float, step: int) -> Judgement | None:
    """How a value looks; None where nothing is known of it, or not yet."""
    healthy = HEALTHY.get(metric)
    if healthy is None or step < healthy.from_step:
        return None
    if value > healthy.bad:
        return "bad"
    return "healthy" if healthy.low <= value <= healthy.high else "watch"
