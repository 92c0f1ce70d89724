"""Figures of held-out rows of data. Every interval is over rows, or over prompts.

    accuracy             of a reward model: the share of pairs that it ranks as given
    agreement            of a reward model: Spearman's rank correlation with the given ranking, averaged over rankings
    calibration_error    of a reward model: the expected calibration error of P = sigmoid(difference), over bins of equal size
    length_bias          of a reward model: Pearson's correlation of reward and length, each minus its prompt's mean
    gap                  mean log p(t) of the policy's own samples - mean log p(t) of the data's answers, nats per token
    outdone              share of prompts where the policy's own answer earns more than the chosen one (filtered DPO, arXiv:2404.13846)
    bits_per_byte        -sum log pi(t) / (ln 2 * bytes), the end token included: comparable between tokenizers

The other figures are the metrics of the algorithm's loss, row by row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

import numpy as np

from ikusei.eval_metrics.format import digits, estimate, ordering, percent, plural
from ikusei.eval_metrics.metric import SHARE, Figure, Sentence
from ikusei.intervals import Interval, centred, correlation, mean_interval
from ikusei.run.read import Evaluation

BINS = 5  # of the calibration
CHANCE = Interval(0.5, 0.5, 0.5)  # of a pair
LITTLE = 0.1  # a correlation below it is reported as none


@dataclass(frozen=True)
class Rankings:
    """A reward model's data: R answers to G prompts, and P pairs of them. `tiers` is the given order, 0 the best; None where a prompt's
    answers have none."""

    reward_R: np.ndarray
    length_R: np.ndarray  # tokens
    group_R: np.ndarray
    better_P: np.ndarray  # places in R
    worse_P: np.ndarray
    tiers: Sequence[Sequence[int] | None]  # by prompt

    @cached_property
    def right_P(self) -> np.ndarray:
        better, worse = self.reward_R[self.better_P], self.reward_R[self.worse_P]
        return (better > worse) + 0.5 * (better == worse)

    @cached_property
    def stated_P(self) -> np.ndarray:
        """The probability that it gives to the order that it prefers."""
        return 1 / (1 + np.exp(-np.abs(self.reward_R[self.better_P] - self.reward_R[self.worse_P])))


@dataclass(frozen=True)
class Texts:
    """Data of texts: the code length of each response in bits, and its size in bytes."""

    bits_R: np.ndarray
    bytes_R: np.ndarray


@dataclass(frozen=True)
class Gaps:
    """Preference data beside the policy's own answers: mean log-probs per token, by prompt. `outdone`: 1 where the own answer earns more
    than the chosen one, 1/2 where as much; only prompts where rewards scored both."""

    own: Sequence[float]
    chosen: Sequence[float]
    rejected: Sequence[float]
    outdone: Sequence[float]


def accuracy(rankings: Rankings) -> Interval:
    group_P = rankings.group_R[rankings.better_P]
    return mean_interval([float(rankings.right_P[group_P == g].mean()) for g in np.unique(group_P)])


def agreement(rankings: Rankings) -> Interval | None:
    """Rankings without an order, or whose rewards are all equal, are left out. A pair gives 1 or -1."""
    correlations = []
    for g, tiers in enumerate(rankings.tiers):
        reward = rankings.reward_R[rankings.group_R == g]
        if tiers is not None and len(set(tiers)) > 1 and len(set(reward.tolist())) > 1:
            from scipy.stats import rankdata  # a second to load

            correlations.append(float(np.corrcoef(rankdata(reward), rankdata([-tier for tier in tiers]))[0, 1]))
    return mean_interval(correlations) if correlations else None


def calibration(rankings: Rankings) -> list[dict[str, float]]:
    """Bins of equal size by the stated probability: its mean, and the share of pairs that were ranked right."""
    stated, right = rankings.stated_P, rankings.right_P
    order = np.argsort(stated, kind="stable")
    return [
        {"stated": fmean(stated[part].tolist()), "right": fmean(right[part].tolist()), "pairs": len(part)}
        for part in np.array_split(order, min(BINS, len(order)))
    ]


def calibration_error(rankings: Rankings) -> float:
    bins = calibration(rankings)
    return float(sum(row["pairs"] * abs(row["stated"] - row["right"]) for row in bins) / max(len(rankings.stated_P), 1))


def length_bias(rankings: Rankings) -> float:
    return correlation(centred(rankings.reward_R, rankings.group_R), centred(rankings.length_R, rankings.group_R)) or 0.0


def bits_per_byte(texts: Texts) -> Interval:
    """Over all bytes of all responses, with the interval of a ratio of two means (the delta method: the values' mean is the ratio)."""
    ratio = float(texts.bits_R.sum() / texts.bytes_R.sum())
    spread = mean_interval(((texts.bits_R - ratio * texts.bytes_R) / texts.bytes_R.mean() + ratio).tolist())
    return Interval(ratio, spread.low, spread.high)


def gap(gaps: Gaps, data: Sequence[float]) -> Interval:
    return mean_interval([own - other for own, other in zip(gaps.own, data, strict=True)])


def beside_chance(name: str, higher: str, lower: str, same: str) -> Sentence:
    """A sentence about the figure after training beside chance; {} is the figure."""

    def sentence(before: Evaluation | None, after: Evaluation) -> str | None:
        value = after.intervals.get(name)
        words = {"higher": higher, "lower": lower, "same": same}
        return None if value is None else words[ordering(CHANCE, value)].format(estimate(value, True))

    return sentence


def since_before(name: str, higher: str | None, lower: str, same: str | None) -> Sentence:
    """A sentence about the change of the figure; {} is before and after. None: no sentence."""

    def sentence(before: Evaluation | None, after: Evaluation) -> str | None:
        old, new = (made.intervals.get(name) if made else None for made in (before, after))
        words = old and new and {"higher": higher, "lower": lower, "same": same}[ordering(old, new)]
        return words and words.format(f"{estimate(old, False)} → {estimate(new, False)}")

    return sentence


def on_texts(name: str, texts: str) -> Sentence:
    return since_before(
        name,
        f"{texts} is predicted worse than before: {{}} bits per byte.",
        f"{texts} is predicted better than before: {{}} bits per byte.",
        f"{texts}: {{}} bits per byte; the intervals overlap, so neither gain nor loss can be claimed.",
    )


def on_length(before: Evaluation | None, after: Evaluation) -> str | None:
    bias, num_rows = after.number("length_bias"), after.results.get("num_rows", 0)
    if bias is None:
        return None
    value = f"correlation {digits(bias)} with length among answers to one prompt"
    if abs(bias) < max(LITTLE, 2 / math.sqrt(num_rows)):
        return f"No liking for long or short answers shows on {plural(num_rows, 'ranking')} ({value})."
    return f"It prefers {'longer' if bias > 0 else 'shorter'} answers: {value}. Watch the length of answers when you train against it."


def on_certainty(before: Evaluation | None, after: Evaluation) -> str | None:
    bins = after.results.get("calibration")
    if not bins:
        return None
    pairs = sum(row["pairs"] for row in bins)
    stated, right = (sum(row[key] * row["pairs"] for row in bins) / pairs for key in ("stated", "right"))
    how = "it is surer than it is right" if stated > right else "it is at least as right as it is sure"
    return f"It states a chance of {percent(stated)} for its order on average, and {percent(right)} of the pairs come true: {how}."


FIGURES: tuple[Figure, ...] = (
    Figure(
        "accuracy", "pairs in the right order", Rankings, accuracy, SHARE, "the better answer earns more; by chance 50%",
        beside_chance(
            "accuracy",
            "It puts {} of held-out pairs in the right order, more than by chance (50%).",
            "It puts only {} of held-out pairs in the right order, fewer than by chance (50%): are the labels turned round?",
            "It puts {} of held-out pairs in the right order, which cannot be told from chance (50%): not one to train on.",
        ),
        large="pairs in the right order", headline=True,
    ),
    Figure(
        "agreement", "agreement with the given order", Rankings, agreement,
        note="rank correlation: 1 the same order, 0 by chance, −1 the reverse", large="agreement with the given order",
    ),
    Figure(
        "calibration_error", "error of its certainty", Rankings, calibration_error, SHARE,
        "between the chance it states and the share that comes true",
    ),
    Figure(
        "length_bias", "correlation with length", Rankings, length_bias,
        note="among answers to one prompt; above 0 the longer ones earn more", sentence=on_length,
    ),
    Figure("margin", note="reward of the better answer less that of the worse"),
    Figure(
        "reward_mean", "mean reward", Rankings, lambda rankings: float(rankings.reward_R.mean()), note="over all held-out answers",
    ),
    Figure(
        "reward_std", "spread of rewards", Rankings, lambda rankings: float(rankings.reward_R.std()),
        note="one standard deviation over all held-out answers",
    ),
    Figure("calibration", of=Rankings, compute=calibration, sentence=on_certainty, members="none"),
    Figure("mean_reward", members="none"),  # reward_mean once more, as the loss has it
    Figure(
        "rewards/accuracies", "chosen one preferred", unit=SHARE, note="pairs whose chosen answer has the higher implicit reward",
        sentence=beside_chance(
            "rewards/accuracies",
            "It prefers the chosen answer in {} of held-out pairs, more often than by chance (50%).",
            "It prefers the chosen answer in only {} of held-out pairs, less often than by chance (50%).",
            "It prefers the chosen answer in {} of held-out pairs, which cannot be told from chance (50%).",
        ),
        large="chosen answer preferred",
    ),
    Figure("rewards/margins", "implicit margin", note="implicit reward of the chosen answer less that of the rejected one"),
    Figure("rewards/chosen", "implicit reward, chosen"),
    Figure("rewards/rejected", "implicit reward, rejected"),
    Figure(
        "logps/chosen", "log-probability, chosen", note="of the whole answer, in nats: nearer to 0 is likelier",
        sentence=since_before(
            "logps/chosen", None,
            "The chosen answers themselves became less likely: log-probability {}. Likelihood displacement: the probability went to "
            "answers that no pair speaks of. Fewer steps, a smaller learning rate or DPO's nll_coef hold them up.", None,
        ),
    ),
    Figure("logps/rejected", "log-probability, rejected", note="of the whole answer, in nats"),
    Figure(
        "gap/chosen", "log-prob gap, chosen", Gaps, lambda gaps: gap(gaps, gaps.chosen),
        note="to the model's own samples, nats per token; 0: as likely as these",
    ),
    Figure(
        "gap/rejected", "log-prob gap, rejected", Gaps, lambda gaps: gap(gaps, gaps.rejected), note="the same of the rejected answers"
    ),
    Figure(
        "outdone", "own answer is better", Gaps, lambda gaps: mean_interval(list(gaps.outdone)) if gaps.outdone else None, SHARE,
        "prompts to which it earns more than the chosen one; as much counts half",
    ),
    Figure(
        "bits_per_byte", "bits per byte", Texts, bits_per_byte,
        note="what each byte of the held-out responses costs to write down; lower is better",
        sentence=on_texts("bits_per_byte", "Held-out text of the new kind"), large="bits per byte of new text", headline=True,
    ),
    Figure(
        "replay/bits_per_byte", "bits per byte, replayed text", note="the same of what was known before; lower is better",
        sentence=on_texts("replay/bits_per_byte", "The replayed text"), large="bits per byte of replayed text",
    ),
    Figure(
        "loss", note="of the algorithm on rows that it does not learn from; lower is better",
        sentence=since_before(
            "loss",
            "The loss on held-out rows rose: the two intervals lie apart.",
            "The loss on held-out rows fell: the two intervals lie apart.",
            "The two intervals of the held-out loss overlap: no gain can be claimed.",
        ),
        large="loss on held-out rows", fallback=True,
    ),
    Figure("entropy", note="nats a token"),
)  # fmt: skip
