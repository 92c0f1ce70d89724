"""What a run has gained: the figures in large, and sentences that claim no more than the intervals do.

What was measured decides what is said: sampled answers that rewards judge, pairs that a policy learned to prefer, rankings that a reward
model puts in order, texts that a model predicts. Of a run that was not measured the steps are told, and the label says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ikusei.intervals import Interval
from ikusei.report import collection
from ikusei.report.format import above_or_below, compare, digits, estimate, gained, percent, plural, span
from ikusei.run import comparison
from ikusei.run.comparison import Comparison
from ikusei.run.read import Evaluation, Story

NUM_ENDS = 5  # steps averaged at either end where no evaluation says what was gained
GUESSING = Interval(0.5, 0.5, 0.5)
CARDS_OF_ROWS = (  # figure, label, whether it is a share
    ("accuracy", "pairs in the right order", True),
    ("agreement", "agreement with the given order", False),
    ("rewards/accuracies", "chosen answer preferred", True),
    ("bits_per_byte", "bits per byte of new text", False),
    ("replay/bits_per_byte", "bits per byte of replayed text", False),
)
LITTLE = 0.1  # a correlation below it is told as none


@dataclass(frozen=True)
class Card:
    """A figure before and after, in large; before is None where there is nothing to compare it with."""

    label: str
    before: str | None
    after: str
    note: str


def cards(story: Story) -> Iterator[Card]:
    """What was gained, by the evaluations; without them by the steps."""
    before, after = story.before, story.after
    if story.collects:
        yield from of_collection(story)
        return
    found = [*of_answers(before, after), *of_rows(before, after)] if after else []
    yield from found or of_steps(story)


def of_answers(before: Evaluation | None, after: Evaluation | None) -> Iterator[Card]:
    if not (before and after and before.sampled and after.sampled):
        return
    ks = shared(before, after)
    for k in dict.fromkeys((*ks[:1], *ks[-1:])):
        yield pair("right at the first try" if k == 1 else f"right within {k} tries", before.pass_at[k], after.pass_at[k], True)
    old, new = before.intervals.get("reward"), after.intervals.get("reward")
    if old and new and tells_more(before, after):
        yield pair("reward of an answer", old, new, False)
    was, now = before.number("empty_thoughts"), after.number("empty_thoughts")
    if was is not None and now is not None and max(was, now) > 0:
        yield Card("empty thoughts", percent(was), percent(now), "share of all answers")


def of_rows(before: Evaluation | None, after: Evaluation) -> Iterator[Card]:
    """Figures of held-out rows; the loss only where there is no better one."""
    known = [each for each in CARDS_OF_ROWS if each[0] in after.intervals]
    for key, label, share in known or (() if after.sampled else (("loss", "loss on held-out rows", False),)):
        old, new = before.intervals.get(key) if before else None, after.intervals.get(key)
        if new is None:
            continue
        if old is None:
            note = f"on held-out rows; 95% interval {span(new, share)}" + ("; by guessing 50%" if share else "")
            yield Card(label, None, estimate_value(new, share), note)
        else:
            yield pair(label, old, new, share)


def of_collection(story: Story) -> Iterator[Card]:
    asked, num_rows = collection.num_asked(story), len(story.collected)
    yield Card("rows collected", None, f"{num_rows:,}", f"{story.settings['collect']['kind']}, from {plural(asked, 'prompt')}")
    if asked:
        share = collection.share_of_prompts(story)
        yield Card("prompts that gave a row", None, percent(share.value), f"95% interval {span(share)}")
    if story.finite("reward"):
        rewards = story.finite("reward")
        yield Card("reward of an answer", None, digits(sum(rewards) / len(rewards)), "mean over the steps")


def of_steps(story: Story) -> Iterator[Card]:
    for metric in ("reward", "loss"):
        values = story.finite(metric)
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
    """False where rewards are 0 or 1 alone, for then the mean reward is pass@1."""
    return any(1 in each.pass_at and each.pass_at[1] != each.intervals.get("reward") for each in made)


def words(story: Story) -> Iterator[str]:
    """What the figures mean."""
    before, after = story.before, story.after
    if story.collects:
        yield from collection.sentences(story)
        return
    told = [*on_answers(story), *on_pairs(before, after), *on_rankings(story), *on_texts(before, after)]
    if not told and before and after:
        told += on_loss(before, after)
    yield from told
    if not (before and after and shared(before, after)):
        yield what_is_missing(story)


def on_answers(story: Story) -> Iterator[str]:
    """Prompt by prompt: what is hard for both models does not blur the difference."""
    before, after, found = story.before, story.after, comparison.of_run(story)
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
    yield from on_the_proxy(story, before, after)


def within_reach(found: Comparison, most: int, one: str = "the trained model", other: str = "the base") -> Iterator[str]:
    """What many tries reach, who alone reaches it, and where the curves meet."""
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


def on_the_proxy(story: Story, before: Evaluation, after: Evaluation) -> Iterator[str]:
    """A reward that is trained on and rises while the gold ones do not is how a cheated reward looks."""
    specs = story.settings.get("rewards") or []
    gold = [f"rewards/{spec['name']}" for spec in specs if spec["gold"]]
    old, new = before.reward_parts, after.reward_parts
    moved = {key: compare(old[key], new[key]) for key in old if key in new}
    trained = [key for key, how in moved.items() if key not in gold and how == "higher"]
    if trained and gold and all(moved.get(key) != "higher" for key in gold):
        names, judges = (", ".join(key.removeprefix("rewards/") for key in keys) for keys in (trained, gold))
        yield (
            f"What it is trained on rose ({names}), and of the gold reward ({judges}) no gain can be claimed. A reward that is "
            "being cheated looks like this too: read the answers."
        )


def on_pairs(before: Evaluation | None, after: Evaluation | None) -> Iterator[str]:
    """Of a policy that learned from pairs."""
    if after is None or "rewards/accuracies" not in after.intervals:
        return
    told = estimate(after.intervals["rewards/accuracies"], True)
    yield {
        "higher": f"It prefers the chosen answer in {told} of held-out pairs, more often than guessing would (50%).",
        "lower": f"It prefers the chosen answer in only {told} of held-out pairs, less often than guessing would (50%).",
        "same": f"It prefers the chosen answer in {told} of held-out pairs, which cannot be told from guessing (50%).",
    }[compare(GUESSING, after.intervals["rewards/accuracies"])]
    old, new = (made.intervals.get("logps/chosen") if made else None for made in (before, after))
    if old and new and compare(old, new) == "lower":
        yield (
            f"The chosen answers themselves became less likely: log-probability {estimate(old, False)} → {estimate(new, False)}. "
            "Likelihood displacement: the probability went to answers that no pair speaks of. Fewer steps, a smaller learning rate or "
            "DPO's nll_coef hold them up."
        )


def on_rankings(story: Story) -> Iterator[str]:
    """Of a reward model: whether it can be trusted, and what else it likes."""
    after = story.after
    if after is None or "accuracy" not in after.intervals:
        return
    told, num_rows = estimate(after.intervals["accuracy"], True), after.results["num_rows"]
    yield {
        "higher": f"It puts {told} of held-out pairs in the right order, more than guessing would (50%).",
        "lower": f"It puts only {told} of held-out pairs in the right order, fewer than guessing would (50%): are the labels turned round?",
        "same": f"It puts {told} of held-out pairs in the right order, which cannot be told from guessing (50%): not one to train on.",
    }[compare(GUESSING, after.intervals["accuracy"])]
    bias = after.number("length_bias")
    if bias is not None:
        figure = f"correlation {digits(bias)} with length among answers to one prompt"
        if abs(bias) < max(LITTLE, 2 / math.sqrt(num_rows)):
            yield f"No liking for long or short answers shows on {plural(num_rows, 'ranking')} ({figure})."
        else:
            kind = "longer" if bias > 0 else "shorter"
            yield f"It prefers {kind} answers: {figure}. Watch the length of answers when you train against it."
    bins = after.results.get("calibration") or []
    if bins:
        pairs = sum(row["pairs"] for row in bins)
        stated, right = (sum(row[key] * row["pairs"] for row in bins) / pairs for key in ("stated", "right"))
        how = "it is surer than it is right" if stated > right else "it is at least as right as it is sure"
        yield f"It states a chance of {percent(stated)} for its order on average, and {percent(right)} of the pairs come true: {how}."
    for event in [event for event in story.events if event["kind"] == "normalised"][-1:]:
        told = f"before that their mean was {digits(event['mean'])} and their spread {digits(event['std'])}"
        yield f"Its scale is that of what the model it is made from writes: there rewards have mean 0 and spread 1 ({told})."


def on_texts(before: Evaluation | None, after: Evaluation | None) -> Iterator[str]:
    for key, what in (("bits_per_byte", "Held-out text of the new kind"), ("replay/bits_per_byte", "The replayed text")):
        old, new = (made.intervals.get(key) if made else None for made in (before, after))
        if old and new:
            told = f"{estimate(old, False)} → {estimate(new, False)} bits per byte"
            yield {
                "lower": f"{what} is predicted better than before: {told}.",
                "higher": f"{what} is predicted worse than before: {told}.",
                "same": f"{what}: {told}; the intervals overlap, so neither gain nor loss can be claimed.",
            }[compare(old, new)]


def on_loss(before: Evaluation, after: Evaluation) -> Iterator[str]:
    if "loss" in before.intervals and "loss" in after.intervals:
        yield {
            "lower": "The loss on held-out rows fell: the two intervals lie apart.",
            "higher": "The loss on held-out rows rose: the two intervals lie apart.",
            "same": "The two intervals of the held-out loss overlap: no gain can be claimed.",
        }[compare(before.intervals["loss"], after.intervals["loss"])]


def what_is_missing(story: Story) -> str:
    """What was not measured, and so is not known."""
    made = {"of the base": story.before, "of the trained model": story.after}
    missing = " and ".join(name for name, evaluation in made.items() if evaluation is None)
    if missing:
        return f"What was gained on held-out questions is not known: no evaluation {missing} was made."
    if story.after and "accuracy" in story.after.intervals:
        return "A reward model writes no answers; how good it is shows when a policy is trained against it."
    return "Whether its answers became better was not measured: no reward judged any; a recipe with rewards and an eval_task measures that."
