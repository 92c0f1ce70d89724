"""Progress on the terminal: one panel that stays in place; without a terminal, one plain line a step.

The first line is the run folder, since everything shown here is also there. Only metrics that are present are shown. The loss is hidden
where there is a reward: with one update a batch it is near 0 by construction. Sparklines cover the whole run.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ikusei.run.health import judge

BLOCKS = "▁▂▃▄▅▆▇█"
PANEL_WIDTH = 92
COLOURS = {"healthy": "green", "watch": "yellow", "bad": "bold red", None: ""}

# label, metric of the sparkline, then metrics and how each reads
ROWS: tuple[tuple[str, str | None, tuple[tuple[str, str], ...]], ...] = (
    ("reward", "reward", (("reward", "{:.3f}"), ("reward_std", "± {:.2f}"))),
    ("loss", "loss", (("loss", "{:.4f}"),)),
    ("pairs", "margin", (("accuracy", "{:.0%} in the right order"), ("margin", "margin {:.2f}"))),
    ("pairs", "rewards/margins", (("rewards/accuracies", "{:.0%} chosen preferred"), ("rewards/margins", "margin {:.2f}"))),
    ("log p", "logps/chosen", (("logps/chosen", "chosen {:.1f}"), ("logps/rejected", "rejected {:.1f}"))),
    ("data", "pairs/left", (("pairs/left", "{:,.0f} pairs left"),)),
    ("rows", "rows", (("rows", "{:,.0f}"),)),
    ("replay", "replay/loss", (("replay/loss", "loss {:.4f}"),)),
    ("thoughts", "thoughts/mean_length", (("thoughts/mean_length", "{:.0f} characters"), ("thoughts/empty", "{:.0%} empty"))),
    ("answers", "completions/mean_length", (("completions/mean_length", "{:.0f} tokens"), ("completions/clipped_ratio", "{:.0%} cut off"))),
    ("groups", None, (("groups/all_zero", "{:.0%} all zero"), ("groups/all_full", "{:.0%} all full"))),
    ("policy", "entropy", (("entropy", "entropy {:.2f}"), ("kl", "kl {:.3f}"), ("sampling/logp_gap", "gap {:.1e}"))),
    ("critic", "loss/value", (("loss/value", "loss {:.3f}"),)),
    ("update", None, (("learning_rate", "lr {:.1e}"), ("grad_norm", "gradient {:.2f}"))),
)


@dataclass
class Display:
    """Handed out by `display`; the loop calls `update` after each step."""

    total_steps: int
    title: str
    console: Console
    step: int = 0
    note: str | None = None
    history: dict[str, list[float]] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    clock: deque[tuple[float, int, float]] = field(default_factory=lambda: deque(maxlen=20))  # (time, step, tokens)

    def update(self, step: int, metrics: Mapping[str, float], note: str | None = None) -> None:
        """Shows the step; `note` is the latest warning and stays until the next."""
        self.step = step
        for name, value in metrics.items():
            self.history.setdefault(name, []).append(value)
        self.clock.append((time.monotonic(), step, metrics.get("tokens_sampled", metrics.get("num_tokens", 0.0))))
        if note is not None:
            self.note = note
        if not self.console.is_terminal:
            self.plain(" · ".join(self.words()))
            if note is not None:
                self.plain(f"warning: {note}")

    def say(self, text: str, style: str = "") -> None:
        """A line that stays, above the panel."""
        self.plain(text, style)

    def plain(self, text: str, style: str = "") -> None:
        self.console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    def last(self, metric: str) -> float:
        return self.history[metric][-1]

    def words(self) -> list[str]:
        """The step in words, one for each row that has something to say."""
        rows = [f"{label} {' '.join(value.plain for value in values)}" for label, values, _ in self.rows()]
        return [f"step {self.step:>{len(str(self.total_steps))}}/{self.total_steps}", *rows, *self.speed(), *self.time_left()]

    def rows(self) -> list[tuple[str, list[Text], list[float]]]:
        """(label, values in words and colours, history to draw) of what is present."""
        shown = []
        for label, drawn, cells in ROWS:
            if label == "loss" and "reward" in self.history:
                continue
            present = [(metric, form) for metric, form in cells if metric in self.history]
            words = [
                Text(read(self.last(metric), form), style=COLOURS[judge(metric, self.last(metric), self.step)]) for metric, form in present
            ]
            if words:
                shown.append((label, words, self.history.get(drawn or "", [])))
        return shown

    def speed(self) -> list[str]:
        """Tokens a second over the last steps, once there are two to compare, and the peak memory."""
        words = []
        if len(self.clock) > 1 and self.clock[-1][2] > self.clock[0][2]:
            (start, _, before), (end, _, after) = self.clock[0], self.clock[-1]
            words.append(f"{(after - before) / (end - start):,.0f} tokens/s")
        if "memory/peak_mb" in self.history:
            words.append(f"{self.last('memory/peak_mb'):,.0f} MB")
        return words

    def time_left(self) -> list[str]:
        """What the steps that are left will take at the pace of the last ones."""
        if len(self.clock) < 2:
            return []
        (start, first, _), (end, last, _) = self.clock[0], self.clock[-1]
        return [f"{clock_time((end - start) / (last - first) * (self.total_steps - last))} left"]

    def __rich__(self) -> Panel:
        width = min(self.console.width, PANEL_WIDTH)
        head = Table.grid(padding=(0, 2))
        times = " · ".join([clock_time(time.monotonic() - self.began), *self.time_left()])
        bar = ProgressBar(self.total_steps, self.step, width=width // 2)
        head.add_row(Text(f"step {self.step}/{self.total_steps}", style="bold"), bar, Text(times, style="dim"))
        body = Table.grid(padding=(0, 2))
        for label, values, drawn in self.rows():
            spark = Text(sparkline(drawn, max(width - 64, 0)), style="cyan")
            body.add_row(Text(label, style="dim"), Text("  ").join(values), spark)
        blocks: list[Table | Text] = [head]
        if self.history:
            blocks += [Text(), body, Text(), Text(" · ".join(self.speed()), style="dim")]
        if self.note is not None:
            blocks.append(Text(f"⚠ {self.note}", style="yellow"))
        title = Text.assemble((" ikusei ", "bold"), (f"{self.title} ", "dim"))
        return Panel(Group(*blocks), title=title, title_align="left", border_style="cyan", padding=(1, 2), width=width)


@contextmanager
def display(total_steps: int, title: str, console: Console) -> Iterator[Display]:
    """Shows a run of `total_steps` steps until the block ends. `title` names the run folder and is the first line."""
    shown = Display(total_steps, title, console)
    shown.say(title)
    if not console.is_terminal:
        yield shown
        return
    with Live(shown, console=console, refresh_per_second=4):
        yield shown


def read(value: float, form: str) -> str:
    return form.format(value) if math.isfinite(value) else "not a number"


def clock_time(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def sparkline(values: Sequence[float], width: int) -> str:
    """At most `width` blocks for all values: each the mean of its share of them, a space where there is no finite one."""
    num_buckets = min(width, len(values))
    edges = [i * len(values) // max(num_buckets, 1) for i in range(num_buckets + 1)]
    buckets = [[v for v in values[a:b] if math.isfinite(v)] for a, b in pairwise(edges)]
    means = [sum(bucket) / len(bucket) if bucket else None for bucket in buckets]
    finite = [mean for mean in means if mean is not None]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(" " if mean is None else BLOCKS[round((mean - low) * scale)] for mean in means)
