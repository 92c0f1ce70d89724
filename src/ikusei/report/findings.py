"""What a run changed: large figures, and sentences that claim no more than the intervals do.

What was measured decides what is reported: sampled answers that rewards scored, pairs, rankings of a reward model, texts. A run without
evaluations is described by its steps, and the label says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ikusei.eval_metrics import answers, rows
from ikusei.eval_metrics.format import above_or_below, digits, gained, number, ordering, percent, plural, span
from ikusei.eval_metrics.metric import belongs
from ikusei.intervals import Interval
from ikusei.report import collection
from ikusei.run import comparison
from ikusei.run.comparison import Comparison
from ikusei.run.read import Evaluation, RunRecord

NUM_ENDS = 5  # steps averaged at either end where no evaluation says what was gained


@dataclass(frozen=True)
class Card:
    """A large figure before and after; `before` is None where there is nothing to compare with."""

    label: str
    before: str | None
    after: str
    note: str


def cards(record: RunRecord) -> Iterator[Card]:
    """The large figures, from the evaluations, or without these from the steps."""
    before, after = record.before, record.after
    if record.collects:
        yield from of_collection(record)
        return
    measured = [*of_answers(before, after), *of_rows(before, after)] if after else []
    yield from measured or of_steps(record)


def of_answers(before: Evaluation | None, after: Evaluation | None) -> Iterator[Card]:
    """Figures that both have. Left out: a mean that repeats a share, as with rewards of 0 and 1, and numbers that are 0 in both."""
    if not (before and after and before.sampled and after.sampled):
        return
    shown: list[tuple[Interval, Interval]] = []
    for figure in (each for each in answers.FIGURES if each.large):
        keys = [key for key in before.results if key in after.results and belongs(key, answers.FIGURES) is figure]
        for key in sorted(keys, key=figure.k)[-1:]:
            label = figure.large.format(k=figure.k(key))
            old, new = before.intervals.get(key), after.intervals.get(key)
            was, now = before.number(key), after.number(key)
            if old and new and (figure.share or (old, new) not in shown):
                shown.append((old, new))
                yield pair(label, old, new, figure.share)
            elif was is not None and now is not None and max(was, now) > 0:
                yield Card(label, number(was, figure.share), number(now, figure.share), figure.note)


def of_rows(before: Evaluation | None, after: Evaluation) -> Iterator[Card]:
    """Figures of held-out rows; the loss only where there is no better one."""
    large = [figure for figure in rows.FIGURES if figure.large and figure.name in after.intervals]
    better = [figure for figure in large if not figure.fallback]
    for figure in better or (() if after.sampled else large):
        old, new = before.intervals.get(figure.name) if before else None, after.intervals[figure.name]
        if old is None:
            note = f"on held-out rows; 95% interval {span(new, figure.share)}" + ("; by chance 50%" if figure.share else "")
            yield Card(figure.large, None, estimate_value(new, figure.share), note)
        else:
            yield pair(figure.large, old, new, figure.share)


def of_collection(record: RunRecord) -> Iterator[Card]:
    asked, num_rows = collection.num_asked(record), len(record.collected)
    yield Card("rows collected", None, f"{num_rows:,}", f"{record.settings['collect']['kind']}, from {plural(asked, 'prompt')}")
    if asked:
        share = collection.share_of_prompts(record)
        yield Card("prompts that gave a row", None, percent(share.value), f"95% interval {span(share)}")
    if record.finite("reward"):
        rewards = record.finite("reward")
        yield Card("reward of an answer", None, digits(sum(rewards) / len(rewards)), "mean over the steps")


def of_steps(record: RunRecord) -> Iterator[Card]:
    for metric in ("reward", "loss"):
        values = record.finite(metric)
        if len(values) > 1:
            first, last = values[:NUM_ENDS], values[-NUM_ENDS:]
            note = f"mean of the first and of the last {plural(len(last), 'step')}, on the prompts trained on"
            yield Card(metric, f"{sum(first) / len(first):.3f}", f"{sum(last) / len(last):.3f}", note)
            return


def pair(label: str, old: Interval, new: Interval, share: bool) -> Card:
    note = f"95% intervals {span(old, share)} and {span(new, share)}"
    return Card(label, estimate_value(old, share), estimate_value(new, share), note)


def estimate_value(interval: Interval, share: bool) -> str:
    return percent(interval.value) if share else digits(interval.value, (interval.low, interval.high))


def shared(before: Evaluation | None, after: Evaluation | None) -> list[int]:
    """The k of each pass@k that was measured both before and after."""
    return sorted(before.pass_at.keys() & after.pass_at.keys()) if before and after else []


def tells_more(*made: Evaluation) -> bool:
    """Whether the mean reward differs from pass@1. It does not where every reward is 0 or 1."""
    return any(1 in each.pass_at and each.pass_at[1] != each.intervals.get("reward") for each in made)


def words(record: RunRecord) -> Iterator[str]:
    """Sentences about the figures."""
    before, after = record.before, record.after
    if record.collects:
        yield from collection.sentences(record)
        return
    sentences = [*on_answers(record), *of_figures(before, after), *on_scale(record)]
    yield from sentences or of_figures(before, after, fallback=True)
    if not (before and after and shared(before, after)):
        yield what_is_missing(record)


def of_figures(before: Evaluation | None, after: Evaluation | None, fallback: bool = False) -> Iterator[str]:
    """The sentence of each figure."""
    for figure in (*answers.FIGURES, *rows.FIGURES):
        sentence = figure.sentence(before, after) if figure.sentence and after and figure.fallback == fallback else None
        if sentence:
            yield sentence


def on_answers(record: RunRecord) -> Iterator[str]:
    """The paired comparison of before and after."""
    before, after, found = record.before, record.after, comparison.of_run(record)
    if not (before and after and found):
        return
    gain, most = found.gains[1], found.most
    yield {
        "higher": f"The model answers held-out questions right more often than before: {gained(gain)}, prompt by prompt.",
        "lower": f"The model answers held-out questions right less often than before: {gained(gain)}, prompt by prompt.",
        "same": f"From these questions no gain can be claimed: {gained(gain)}, prompt by prompt.",
    }[above_or_below(gain)]
    if most > 1:
        yield from within_reach(found, most)
    yield from on_the_proxy(record, before, after)


def within_reach(found: Comparison, most: int, one: str = "the trained model", other: str = "the base") -> Iterator[str]:
    """pass@k at the largest k, the questions that only one model solves, and where the curves cross."""
    likelier = ": right answers have become likelier, few or none are new" if above_or_below(found.gains[1]) == "higher" else ""
    yield {
        "higher": f"In {most} tries {one} also finds right answers that {other} did not find.",
        "lower": f"In {most} tries {other} found right answers to more questions: what {one} can reach is narrower.",
        "same": f"In {most} tries {other} found about as many{likelier}.",
    }[above_or_below(found.gains[most])]
    total = found.both + found.neither + len(found.only_one) + len(found.only_other)
    yield (
        f"Of {plural(total, 'question')} {found.both} were solved by both, {len(found.only_one)} only by {one}, "
        f"{len(found.only_other)} only by {other}, {found.neither} by neither."
    )
    if found.crossing is not None:
        yield f"The curves meet at k = {found.crossing:.3g}: with more tries than that {other} reaches as far."


def on_the_proxy(record: RunRecord, before: Evaluation, after: Evaluation) -> Iterator[str]:
    """A warning where a trained-on reward rose and no gold reward did: a cheated reward looks like this."""
    specs = record.settings.get("rewards") or []
    gold = [f"rewards/{spec['name']}" for spec in specs if spec["gold"]]
    old, new = before.by_reward, after.by_reward
    moved = {key: ordering(old[key], new[key]) for key in old if key in new}
    trained = [key for key, how in moved.items() if key not in gold and how == "higher"]
    if trained and gold and all(moved.get(key) != "higher" for key in gold):
        names, judges = (", ".join(key.removeprefix("rewards/") for key in keys) for keys in (trained, gold))
        yield (
            f"What it is trained on rose ({names}), and of the gold reward ({judges}) no gain can be claimed. A reward that is "
            "being cheated looks like this too: read the answers."
        )


def on_scale(record: RunRecord) -> Iterator[str]:
    """The normalisation of a reward model, if there was one."""
    for event in [event for event in record.events if event["kind"] == "normalised"][-1:]:
        before = f"before that their mean was {digits(event['mean'])} and their spread {digits(event['std'])}"
        yield f"Its scale is that of what the model it is made from writes: there rewards have mean 0 and spread 1 ({before})."


def what_is_missing(record: RunRecord) -> str:
    """What was not measured."""
    made = {"of the base": record.before, "of the trained model": record.after}
    missing = " and ".join(name for name, evaluation in made.items() if evaluation is None)
    if missing:
        return f"What was gained on held-out questions is not known: no evaluation {missing} was made."
    if record.after and "accuracy" in record.after.intervals:
        return "A reward model writes no answers; how good it is shows when a policy is trained against it."
    return "Whether its answers became better was not measured: no reward judged any; a recipe with rewards and an eval_task measures that."
