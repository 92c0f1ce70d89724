"""The monitors of the watch. Each reads the history of the run's metrics, and returns what it detects or None.

    gold falls           the gold reward falls while the training reward does not            over-optimisation (arXiv:2210.10760)
    gold stays           the training reward has risen by half of its standard deviation, the gold, with room to, by less than a quarter
    gold disagrees       within a prompt, training reward and gold reward are negatively correlated
    reward falls         from its best: the learning rate is too high, or worse
    loss rises           of a supervised run
    parts                one reward rises at the cost of another, which loses half of the gain or more
    empty thoughts, length, long answers pay, cut off, repetition, copies, entropy, KL, failures, log-probs, few answers

A metric has changed by trend.py's rule, and by the further threshold given here. Where the gold reward (without any, the reward) has risen
too, lengths, duplicates and entropy may change: a model that has learned its task is confident.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median, stdev

from ikusei.guard.outcomes import RewardSpec, gold_names
from ikusei.guard.trend import Change, change, fall, kendall, window
from ikusei.text.answer import split_thought
from ikusei.types import Response


@dataclass(frozen=True)
class Seen:
    """A detected change in words, and the step since which."""

    since: int
    text: str


@dataclass
class History:
    """The metrics of all steps so far, and the rewards that they are of."""

    specs: tuple[RewardSpec, ...]
    lines: dict[str, tuple[list[int], list[float]]] = field(default_factory=dict)

    def add(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Adds the finite metrics of one step."""
        for name, value in metrics.items():
            if value is not None and math.isfinite(value):
                steps, values = self.lines.setdefault(name, ([], []))
                steps.append(step)
                values.append(value)

    def line(self, metric: str) -> tuple[list[int], list[float]]:
        """(steps, values) where the metric was a number."""
        return self.lines.get(metric, ([], []))

    def moved(self, metric: str, how: Callable[[Sequence[float]], Change | None] = change) -> tuple[int, Change] | None:
        """(since which step, by how much) a metric has moved, surely; None where it has not."""
        steps, values = self.line(metric)
        found = how(values)
        return (steps[found.since], found) if found and (found.rose or found.fell) else None

    def recent(self, metric: str) -> tuple[int, list[float]]:
        """(since which step, values) of the last window; no values while there are too few."""
        steps, values = self.line(metric)
        width = window(values)
        return (steps[-width], values[-width:]) if len(values) >= width else (0, [])

    @property
    def golds(self) -> list[str]:
        return gold_names(self.specs)

    @property
    def better(self) -> bool:
        """True where gold (without any, the reward) has possibly risen, since an alarm must be certain; and in runs without rewards."""
        metrics = [f"rewards/{name}/mean" for name in self.golds] or ["reward"]
        found = [change(self.line(metric)[1]) for metric in metrics]
        return any(each is not None and each.by > 2 * each.error for each in found) or "reward" not in self.lines


@dataclass(frozen=True)
class Monitor:
    """`look` detects, `do` is the recommendation, and the responses with the largest `most` illustrate it."""

    name: str
    look: Callable[[History], Seen | None]
    do: str
    most: Callable[[Response], float]


def _gold_falls(history: History) -> Seen | None:
    lost = history.moved("reward", fall)
    for name in history.golds if lost is None or lost[1].rose else ():
        found = history.moved(f"rewards/{name}/mean", fall)
        if found and found[1].fell and -found[1].by >= 0.25 * _spread(history, f"rewards/{name}/std"):
            since, moved = found
            return Seen(since, f"{name}, which is not trained on, fell from {_from(moved)}, and the reward did not")
    return None


def _gold_stays(history: History) -> Seen | None:
    found = history.moved("reward") if history.golds else None
    if found is None or found[1].by < 0.5 * _spread(history, "reward_std"):
        return None
    for name in history.golds:
        own, least = change(history.line(f"rewards/{name}/mean")[1]), 0.25 * _spread(history, f"rewards/{name}/std")
        room = max(history.line("gold/most")[1], default=math.inf)
        if own is None or own.by + 2 * own.error > least or own.before + least > room:
            return None
    if kendall(history.line("reward")[1]) < 3:
        return None
    return Seen(found[0], f"the reward rose from {_from(found[1])}, and {' and '.join(history.golds)}, not trained on, did not follow")


def _gold_disagrees(history: History) -> Seen | None:
    since, values = history.recent("gold/agreement")
    if len(values) < 4 or fmean(values) + 3 * stdev(values) / math.sqrt(len(values)) > -0.05:
        return None
    return Seen(since, f"of two answers to a prompt the one that earns more is worse by the gold: they correlate by {fmean(values):.2f}")


def _reward_falls(history: History) -> Seen | None:
    found = history.moved("reward", fall)
    if found is None or not found[1].fell or -found[1].by < 0.25 * _spread(history, "reward_std"):
        return None
    return Seen(found[0], f"the reward fell from {_from(found[1])}")


def _loss_rises(history: History) -> Seen | None:
    steps, losses = history.line("loss") if not history.line("reward")[0] else ([], [])
    found = fall([-loss for loss in losses])
    if found is None or not found.fell or -found.by < max(0.3 * abs(found.before), 0.05):
        return None
    return Seen(steps[found.since], f"the loss rose from {-found.before:.3g} to {-found.now:.3g}")


def _parts(history: History) -> Seen | None:
    trained = [spec for spec in history.specs if not spec.gold and not spec.gate]
    moved = {spec.name: (history.moved(f"rewards/{spec.name}/mean"), spec.weight) for spec in trained}
    worth = {name: (found[0], found[1], weight * found[1].by) for name, (found, weight) in moved.items() if found}
    gained = max(((worth[name][2], name) for name in worth), default=(0.0, ""))
    for name, (since, change_, by) in worth.items():
        if gained[0] > 0 and by < -0.5 * gained[0]:
            return Seen(
                since, f"{name} went from {_from(change_)} while {gained[1]} rose: what the one loses is half of the other's gain or more"
            )
    return None


def _empty_thoughts(history: History) -> Seen | None:
    return _rises(history, "thoughts/empty", 0.1, 0.5, "the share of empty thoughts")


def _length(history: History) -> Seen | None:
    found = history.moved("completions/mean_length")
    if found is None or history.better or not (found[1].now > 1.5 * found[1].before or found[1].now < found[1].before / 1.5):
        return None
    good = " and ".join(history.golds) or "the reward"
    return Seen(found[0], f"the answers' length went from {_from(found[1], '.0f')} tokens, and {good} did not rise")


def _long_answers_pay(history: History) -> Seen | None:
    since, values = history.recent("reward/length")
    grown = change(history.line("completions/mean_length")[1])
    if not values or fmean(values) < 0.95 or grown is None or grown.now < 1.2 * grown.before:
        return None
    return Seen(since, f"what an answer earns is its length: among the answers to one prompt they correlate by {fmean(values):.2f}")


def _cut_off(history: History) -> Seen | None:
    return _rises(history, "completions/clipped_ratio", 0.15, 0.2, "the share of answers that are cut off")


def _repetition(history: History) -> Seen | None:
    return _rises(history, "completions/repetition", 0.15, 0.2, "what an answer repeats of itself")


def _copies(history: History) -> Seen | None:
    what = "the share of answers that were given to another prompt too"
    return None if history.better else _rises(history, "completions/duplicates", 0.25, 0.5, what)


def _entropy(history: History) -> Seen | None:
    found = history.moved("entropy")
    if found is None or history.better or found[1].now > 0.3 * found[1].before:
        return None
    return Seen(found[0], f"the entropy fell from {_from(found[1])} nats a token before anything was learned")


def _kl(history: History) -> Seen | None:
    since, values = history.recent("kl")
    return Seen(since, f"the KL from the reference is {median(values):.2g} nats a token") if values and median(values) > 1.0 else None


def _failures(history: History) -> Seen | None:
    return _rises(history, "completions/failed", 0.05, 0.05, "the share of answers whose reward failed")


def _log_probs(history: History) -> Seen | None:
    since, values = history.recent("sampling/logp_gap")
    what = "the policy's log-probs differ from the sampler's by"
    return Seen(since, f"{what} {median(values):.2g} nats a token") if values and median(values) > 0.1 else None


def _few_answers(history: History) -> Seen | None:
    since, values = history.recent("advantage/effective")
    if not values or median(values) > 0.03:
        return None
    return Seen(since, f"a few answers carry the update: as many as {median(values):.1%} of those that count at all")


def _rises(history: History, metric: str, by: float, to: float, what: str) -> Seen | None:
    """A share that has risen by and to as much."""
    found = history.moved(metric)
    if found is None or not found[1].rose or found[1].by < by or found[1].now < to:
        return None
    return Seen(found[0], f"{what} rose from {_from(found[1], '.0%')}")


def _spread(history: History, metric: str) -> float:
    """The standard deviation among a step's answers, from the mean of the steps' variances, since what is rare has none in most steps."""
    values = history.line(metric)[1]
    return math.sqrt(fmean(value**2 for value in values)) if values else 0.0


def _from(moved: Change, form: str = ".3g") -> str:
    return f"{moved.before:{form}} to {moved.now:{form}}"


def _paid(response: Response) -> float:
    return response.total if response.total is not None else -math.inf


def _long(response: Response) -> float:
    return float(len(response.tokens))


def _short(response: Response) -> float:
    """Empty thoughts first, and of these what earned most."""
    return (split_thought(response.text)[0] == "") * 1e6 + _paid(response)


def _repeats(response: Response) -> float:
    words = [response.tokens[i : i + 4] for i in range(len(response.tokens))]
    return 1 - len(set(words)) / max(len(words), 1)


def _failed(response: Response) -> float:
    return float(response.total is None)


def _poor(response: Response) -> float:
    return -_paid(response)


LEARN = (
    "lower train.lr (a quarter of it), or pull it back: algorithm.kl_coef, a smaller clip; begin again, or from a model before step {since}"
)
REWARD = "read the answers below, close the hole (`ikusei reward lint`), and go back to the checkpoint with the best gold"

MONITORS: tuple[Monitor, ...] = (
    Monitor("gold falls", _gold_falls, REWARD, _paid),
    Monitor("gold stays", _gold_stays, REWARD, _paid),
    Monitor("gold disagrees", _gold_disagrees, REWARD, _paid),
    Monitor("reward falls", _reward_falls, LEARN, _poor),
    Monitor("loss rises", _loss_rises, LEARN, _poor),
    Monitor("parts", _parts, "weigh them anew, or let one be a gate (gate: true) on the other", _paid),
    Monitor("empty thoughts", _empty_thoughts, "pay for the answer being right, and let the format be a gate (gate: true)", _short),
    Monitor("length", _length, "look whether the reward pays for it, and bound it: the reward `length`, sampling.max_tokens", _long),
    Monitor("long answers pay", _long_answers_pay, "judge the answer and not its length; bound it with the reward `length`", _long),
    Monitor("cut off", _cut_off, "raise sampling.max_tokens, or make length cost (the reward `length`)", _long),
    Monitor("repetition", _repetition, "take something off for it, or lower the temperature of what is sampled", _repeats),
    Monitor("copies", _copies, "one answer for all prompts is paid for: compare with the prompt's own gold answer", _paid),
    Monitor("entropy", _entropy, "lower train.lr, clip higher (algorithm.clip_high: 0.28), or reward entropy (entropy_coef)", _paid),
    Monitor("KL", _kl, "raise algorithm.kl_coef or lower train.lr", _paid),
    Monitor("failures", _failures, "mend the reward for such answers: a number for everything, 0 for what cannot be read", _failed),
    Monitor("log-probs", _log_probs, "sampler and trainer disagree: train.importance_cap: 2, or a higher precision", _long),
    Monitor("few answers", _few_answers, "bound the reward, or divide by the spread of its group (scale_rewards: group)", _paid),
)
