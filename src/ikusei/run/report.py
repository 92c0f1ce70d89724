"""The report of a run: one HTML file that needs nothing else, made from the files of the run folder alone.

It says first what was gained, with intervals, then how it came about, what the model says now beside what it said before, what it cost and
what went wrong. A run that failed midway, or was never evaluated, gets a report too, which says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ikusei.run import files, plots
from ikusei.run.health import FOR_LARGE_MODELS, HEALTHY
from ikusei.run.questions import RULE, side_by_side
from ikusei.run.statistics import Interval
from ikusei.run.story import Evaluation, Story, read_story

CHARTS = (  # metric, title, whether it is a share, whether it is shown at once
    ("reward", "Reward", False, True),
    ("loss", "Loss", False, True),
    ("thoughts/mean_length", "Length of thoughts, characters", False, True),
    ("thoughts/empty", "Empty thoughts", True, True),
    ("completions/clipped_ratio", "Answers cut off at the limit", True, True),
    ("completions/mean_length", "Length of answers, tokens", False, False),
    ("groups/no_signal", "Groups that teach nothing", True, False),
    ("groups/all_zero", "Groups without a right answer", True, False),
    ("groups/all_full", "Groups without a wrong answer", True, False),
    ("entropy", "Entropy, nats a token", False, False),
    ("kl", "KL from the reference", False, False),
    ("sampling/logp_gap", "Log-probs: sampler against trainer", False, False),
    ("grad_norm", "Norm of the gradient", False, False),
    ("learning_rate", "Learning rate", False, False),
)
PHASES = (("time/sample", "sampling"), ("time/reward", "rewards"), ("time/train", "training"))
TROUBLE = ("warning", "error")
OTHER_FIGURES = (("mean_length", "length of answers, tokens"), ("empty_thoughts", "empty thoughts"), ("truncated", "cut off at the limit"))
FAILURES = {
    "reward_errors": "raised an error",
    "reward_timeouts": "ran out of time",
    "reward_crashes": "crashed",
    "reward_not_finite": "gave no finite number",
}
NUM_ENDS = 5  # steps averaged at either end where no evaluation says what was gained


@dataclass(frozen=True)
class Card:
    """A figure before and after, in large."""

    label: str
    before: str
    after: str
    note: str


@dataclass(frozen=True)
class Row:
    """A line of the table; `bars` are drawn where the figure lies between 0 and 1."""

    label: str
    before: str
    after: str
    change: str
    bars: tuple[Interval | None, Interval | None] | None


@dataclass(frozen=True)
class Chart:
    title: str
    svg: str
    note: str
    shown: bool


def write_report(run_folder: Path) -> Path:
    """Writes report.html into the run folder and returns its path.

    Raises:
        ValueError: it is no run folder.
    """
    story = read_story(run_folder)
    before, after = story.before, story.after
    pages = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    page = pages.get_template("report.html.j2").render(
        folder=run_folder.name,
        story=story,
        duration=duration(story.seconds),
        cards=list(cards(story)),
        words=list(words(story)),
        charts=list(charts(story)),
        table=list(table(before, after)),
        pass_chart=plots.pass_at_k({"before": before.pass_at, "after": after.pass_at}) if before and after and shared(story) else None,
        rule=RULE,
        questions=side_by_side(before.samples, after.samples) if before and after else [],
        costs=list(costs(story)),
        spent=list(spent(story)),
        trouble=list(dict.fromkeys(event["text"] for event in story.events if event["kind"] in TROUBLE)),
        failure=[event["text"] for event in story.events if event["kind"] == "error"][-1:],
        failures=list(failures(story)),
    )
    files.write_text(run_folder / "report.html", page)
    return run_folder / "report.html"


def cards(story: Story) -> Iterator[Card]:
    """What was gained, by the evaluations; without them by the steps, and the label says so."""
    before, after = story.before, story.after
    ks = shared(story)
    if before and after and ks:
        for k in dict.fromkeys((ks[0], ks[-1])):
            old, new = before.pass_at[k], after.pass_at[k]
            label = "right at the first try" if k == 1 else f"right within {k} tries"
            yield Card(label, percent(old.value), percent(new.value), f"95% intervals {span(old)} and {span(new)}")
        if "empty_thoughts" in before.results and "empty_thoughts" in after.results:
            yield Card(
                "empty thoughts",
                percent(before.results["empty_thoughts"]),
                percent(after.results["empty_thoughts"]),
                "share of all answers",
            )
        return
    for metric in ("reward", "loss"):
        values = story.finite(metric)
        if len(values) > 1:
            first, last = values[:NUM_ENDS], values[-NUM_ENDS:]
            note = f"mean of the first and of the last {len(last)} steps, on the prompts trained on"
            yield Card(metric, f"{sum(first) / len(first):.3f}", f"{sum(last) / len(last):.3f}", note)
            return


def words(story: Story) -> Iterator[str]:
    """What the figures mean, in sentences that claim no more than the intervals do."""
    before, after = story.before, story.after
    ks = shared(story)
    if not (before and after and ks):
        made = {"of the base": before, "of the trained model": after}
        missing = " and ".join(name for name, evaluation in made.items() if evaluation is None) or "of right answers"
        yield f"What was gained on held-out questions is not known: no evaluation {missing} was made."
        return
    first, most = ks[0], ks[-1]
    old, new = before.pass_at[first], after.pass_at[first]
    yield {
        "higher": "The model answers held-out questions right more often than before: the two intervals lie apart.",
        "lower": "The model answers held-out questions right less often than before: the two intervals lie apart.",
        "same": "The two intervals overlap: from these questions no gain can be claimed.",
    }[compare(old, new)]
    if most > first:
        yield {
            "higher": f"It also finds right answers that the base did not find in {most} tries.",
            "lower": f"In {most} tries the base found right answers to more questions: what the model can reach has become narrower.",
            "same": f"In {most} tries the base already found about as many: right answers have become likelier, few or none are new.",
        }[compare(before.pass_at[most], after.pass_at[most])]


def shared(story: Story) -> list[int]:
    """The k of each pass@k that was measured both before and after."""
    before, after = story.before, story.after
    return sorted(before.pass_at.keys() & after.pass_at.keys()) if before and after else []


def compare(old: Interval, new: Interval) -> str:
    if new.low > old.high:
        return "higher"
    return "lower" if new.high < old.low else "same"


def charts(story: Story) -> Iterator[Chart]:
    for metric, title, share, shown in CHARTS:
        steps, values = story.line(metric)
        if not steps or (metric == "loss" and story.finite("reward")):
            continue  # beside a reward the loss is near 0 by construction and says nothing
        spread = story.line("reward_std")[1] if metric == "reward" else []
        line = plots.Line(steps, values, spread if len(spread) == len(steps) else None, share)
        healthy = (HEALTHY | FOR_LARGE_MODELS).get(metric)
        notes = [f"shaded: healthy, {healthy.note}"] if healthy else []
        notes += ["band: ± one standard deviation"] if line.spread else []
        yield Chart(title, plots.by_step(metric, line, healthy), "; ".join(notes), shown)


def table(before: Evaluation | None, after: Evaluation | None) -> Iterator[Row]:
    """The figures that either evaluation has; the best reward of k answers is in results.json and tells little more than pass@k."""
    old, new = (made.intervals if made else {} for made in (before, after))
    for key in dict.fromkeys(key for key in [*old, *new] if not key.startswith("best_of")):
        a, b, share = old.get(key), new.get(key), key.startswith("pass@")
        yield Row(key, estimate(a, share), estimate(b, share), change(a and a.value, b and b.value, share), (a, b) if share else None)
    for key, label in OTHER_FIGURES:
        x, y = (made.results.get(key) if made else None for made in (before, after))
        if x is not None or y is not None:
            share = key != "mean_length"
            yield Row(label, number(x, share), number(y, share), change(x, y, share), None)


def costs(story: Story) -> Iterator[tuple[str, str, float]]:
    """(phase, how long, share of the whole)."""
    phases = [(label, sum(story.finite(metric))) for metric, label in PHASES]
    phases.append(("evaluation", sum(made.results.get("seconds") or 0.0 for made in story.evaluations)))
    phases.append(("rest: loading, saving, steps taken again", max(story.seconds - sum(seconds for _, seconds in phases), 0.0)))
    whole = sum(seconds for _, seconds in phases)
    for label, seconds in phases:
        if seconds > 0:
            yield label, duration(seconds), seconds / whole


def spent(story: Story) -> Iterator[tuple[str, str]]:
    for metric, label in (
        ("tokens_sampled", "tokens sampled"),
        ("num_tokens", "tokens trained on"),
        ("memory/peak_mb", "MB of memory at the peak"),
    ):
        values = story.finite(metric)
        if values:
            yield f"{max(values):,.0f}", label


def failures(story: Story) -> Iterator[str]:
    """How often each reward failed over the whole run, and how."""
    for metric in sorted({key for row in story.rows for key in row}):
        kind, _, name = metric.partition("/")
        if kind in FAILURES:
            yield f"reward {name}: {FAILURES[kind]} {sum(story.finite(metric)):,.0f} ×"


def percent(share: float) -> str:
    return f"{100 * share:.1f}%" if 0 < share < 0.01 or 0.99 < share < 1 else f"{100 * share:.0f}%"


def span(interval: Interval) -> str:
    return f"{100 * interval.low:.0f}–{100 * interval.high:.0f}%"


def number(value: float | None, share: bool) -> str:
    if value is None:
        return "–"
    return percent(value) if share else f"{value:.1f}"


def estimate(interval: Interval | None, share: bool) -> str:
    if interval is None:
        return "–"
    return f"{percent(interval.value)} ({span(interval)})" if share else f"{interval.value:.3f} ({interval.low:.3f}–{interval.high:.3f})"


def change(old: float | None, new: float | None, share: bool) -> str:
    if old is None or new is None:
        return "–"
    return (f"{100 * (new - old):+.0f} points" if share else f"{new - old:+.3g}").replace("-", "−")


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
