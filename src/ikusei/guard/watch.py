"""The watch: detects reward hacking and instability during a run, by monitors of each step's metrics.

    step's metrics ─► Watch.see ─► Alarm(what, since when, what to do) ─► event, terminal, report; warn | pause | stop_at_best_gold

It reads only the run's recorded metrics, so a resumed run is watched as if it had never stopped. Each monitor raises at most one alarm.
Quality is measured by the gold rewards, which are not trained on. Without any, the training reward is used, and a hacked reward then looks
like success: only its traces (lengths, empty thoughts, duplicates) can be detected.

The thresholds were chosen on runs with other seeds (bench/watch.py) than those that docs/guard.md counts.

Left out: monitors of a user's own (metrics.jsonl has everything they would read).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ikusei.guard.monitors import MONITORS, History
from ikusei.guard.outcomes import RewardSpec
from ikusei.types import Group, Response

Action = Literal["warn", "pause", "stop_at_best_gold"]
SAMPLES = 3
GOLD_IS_PAST = frozenset({"gold falls", "gold stays", "gold disagrees", "reward falls"})


@dataclass(frozen=True)
class WatchSettings:
    """The action after an alarm. `pause` saves and ends; the run can be resumed. `stop_at_best_gold` ends the run once the gold reward no
    longer improves, and keeps the checkpoint with the best held-out gold, the initial model included. Gold is measured every `gold_every`
    steps (0: never) on the held-out prompts, with `gold_samples` responses each. `quiet` names alarms to ignore."""

    action: Action = "warn"
    gold_every: int = 10
    gold_samples: int = 2
    quiet: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [monitor.name for monitor in MONITORS]
        unknown = [name for name in self.quiet if name not in names]
        if unknown:
            raise ValueError(f"watch.quiet: got {unknown[0]!r}; allowed: {', '.join(names)}")
        stops = self.action == "stop_at_best_gold"
        if self.gold_every < stops or self.gold_samples < 1:
            allowed = f"{'1' if stops else '0'} or more, 1 or more"
            raise ValueError(f"watch: got gold_every={self.gold_every}, gold_samples={self.gold_samples}; allowed: {allowed}")


@dataclass(frozen=True)
class Alarm:
    """`since` is the estimated step of onset, `text` the description, `do` the recommendation."""

    name: str
    step: int
    since: int
    text: str
    do: str


class Watch:
    """Runs every monitor that is not in `quiet` after each step."""

    def __init__(self, specs: Sequence[RewardSpec], settings: WatchSettings) -> None:
        self.settings = settings
        self.history = History(tuple(specs))
        self.alarms: list[Alarm] = []

    def restore(self, rows: Iterable[Mapping[str, Any]], alarms: Iterable[Alarm]) -> None:
        """For a resumed run: its recorded metrics and alarms."""
        for row in rows:
            self.history.add(row["step"], row)
        self.alarms += alarms

    def see(self, step: int, metrics: Mapping[str, float | None]) -> list[Alarm]:
        """The alarms that this step raises."""
        self.history.add(step, metrics)
        silent = {*self.settings.quiet, *(alarm.name for alarm in self.alarms)}
        seen = [(monitor, monitor.look(self.history)) for monitor in MONITORS if monitor.name not in silent]
        raised = [
            Alarm(monitor.name, step, result.since, result.text, monitor.do.format(since=result.since))
            for monitor, result in seen
            if result is not None
        ]
        self.alarms += raised
        return raised


def samples(alarm: Alarm, groups: Sequence[Group]) -> list[tuple[Group, Response]]:
    """The responses of a step that show an alarm's cause best, each to another prompt."""
    monitor = next(each for each in MONITORS if each.name == alarm.name)
    best = [max(((monitor.most(each), i) for i, each in enumerate(group.responses)), default=None) for group in groups]
    ranked = sorted(((found[0], g, found[1]) for g, found in enumerate(best) if found), key=lambda each: (-each[0], each[1]))
    return [(groups[g], groups[g].responses[i]) for _, g, i in ranked[:SAMPLES]]
