"""The table of what was measured before and after: each figure's name, and what it says to who meets it for the first time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ikusei.intervals import Interval
from ikusei.report.format import change, estimate, number
from ikusei.run.read import Evaluation


@dataclass(frozen=True)
class Figure:
    """How a figure of an evaluation is called, and what it tells."""

    label: str
    told: str = ""
    share: bool = False  # between 0 and 1, read in per cent


@dataclass(frozen=True)
class Row:
    """A line of the table; `bars` are drawn where the figure lies between 0 and 1."""

    label: str
    told: str
    before: str
    after: str
    change: str
    bars: tuple[Interval | None, Interval | None] | None


OF_ANSWERS = {
    "reward": Figure("reward of an answer", "by the gold rewards where there are any, else what is trained on"),
    "mean_length": Figure("length of answers, tokens"),
    "empty_thoughts": Figure("empty thoughts", share=True),
    "truncated": Figure("cut off at the limit", share=True),
    "failed": Figure("answers without a score", "a reward failed on them", share=True),
}
OF_ROWS = {
    "bits_per_byte": Figure("bits per byte", "what each byte of the held-out responses costs to write down; lower is better"),
    "replay/bits_per_byte": Figure("bits per byte, replayed text", "the same of what was known before; lower is better"),
    "accuracy": Figure("pairs in the right order", "the better answer earns more; by guessing 50%", share=True),
    "agreement": Figure("agreement with the given order", "rank correlation: 1 the same order, 0 by guessing, −1 the reverse"),
    "calibration_error": Figure("error of its certainty", "between the chance it states and the share that comes true", share=True),
    "length_bias": Figure("correlation with length", "among answers to one prompt; above 0 the longer ones earn more"),
    "margin": Figure("margin", "reward of the better answer less that of the worse"),
    "reward_mean": Figure("mean reward", "over all held-out answers"),
    "reward_std": Figure("spread of rewards", "one standard deviation over all held-out answers"),
    "rewards/accuracies": Figure("chosen one preferred", "pairs whose chosen answer has the higher implicit reward", share=True),
    "rewards/margins": Figure("implicit margin", "implicit reward of the chosen answer less that of the rejected one"),
    "rewards/chosen": Figure("implicit reward, chosen"),
    "rewards/rejected": Figure("implicit reward, rejected"),
    "logps/chosen": Figure("log-probability, chosen", "of the whole answer, in nats: nearer to 0 is likelier"),
    "logps/rejected": Figure("log-probability, rejected", "of the whole answer, in nats"),
    "gap/chosen": Figure("distance, chosen", "how much less likely a token is than one of the model's own answers, nats; 0: as its own"),
    "gap/rejected": Figure("distance, rejected", "the same of the rejected answers"),
    "outdone": Figure("own answer is better", "prompts to which it earns more than the chosen one; as much counts half", share=True),
    "loss": Figure("loss", "of the algorithm on rows that it does not learn from; lower is better"),
    "entropy": Figure("entropy", "nats a token"),
}
OF_CHOOSING = {  # of k answers one is given; the tables have the largest k
    "maj": Figure("maj@{k}", "the answer that most of {k} give", share=True),
    "bon": Figure("bon@{k}", "of {k} the one that earns most by the reward", share=True),
    "guess": Figure("guess@{k}", "one of {k} answers of other questions", share=True),
}
SAMPLED = ("pass@", "best_of", "maj@", "bon@", "guess@", "commonest@", "greedy")  # what begins so is of sampled answers
SAID_ELSEWHERE = ("mean_reward",)  # the mean reward, once more; the best of k answers tells little more than pass@k


def table_of_answers(before: Evaluation | None, after: Evaluation | None) -> list[Row]:
    """What was measured on sampled answers."""
    made = [each for each in (before, after) if each]
    ks = dict.fromkeys(key for each in made for key in each.intervals if key.startswith("pass@"))
    rewards = dict.fromkeys(key for each in made for key in each.reward_parts)
    figures = {key: Figure(key, share=True) for key in ks} | {"greedy": Figure("the likeliest answer", "token by token", share=True)}
    for name, figure in OF_CHOOSING.items():
        most = max((k for each in made for k in each.curve(name)), default=0)
        figures[f"{name}@{most}"] = replace(figure, label=figure.label.format(k=most), told=figure.told.format(k=most))
    figures |= {"reward": OF_ANSWERS["reward"], **{key: Figure(f"reward {key.removeprefix('rewards/')}") for key in rewards}}
    return list(rows(figures | OF_ANSWERS, before, after)) if any(each.sampled for each in made) else []


def table_of_rows(before: Evaluation | None, after: Evaluation | None) -> list[Row]:
    """What was measured on rows of data that are held out, the user's own metrics included."""
    made = [each for each in (before, after) if each]
    answers = [*OF_ANSWERS, *SAID_ELSEWHERE, *(key for each in made for key in each.reward_parts)]
    own = [key for each in made for key in each.intervals if key not in answers and not key.startswith(SAMPLED)]
    return list(rows(OF_ROWS | {key: Figure(key) for key in own if key not in OF_ROWS}, before, after))


def rows(figures: dict[str, Figure], before: Evaluation | None, after: Evaluation | None) -> Iterator[Row]:
    """A line for each figure that either evaluation has, with its interval where it has one."""
    for key, figure in figures.items():
        a, b = (made.intervals.get(key) if made else None for made in (before, after))
        if a or b:
            told = estimate(a, figure.share), estimate(b, figure.share), change(a and a.value, b and b.value, figure.share)
            yield Row(figure.label, figure.told, *told, (a, b) if figure.share else None)
            continue
        x, y = (made.number(key) if made else None for made in (before, after))
        if x is not None or y is not None:
            yield Row(figure.label, figure.told, number(x, figure.share), number(y, figure.share), change(x, y, figure.share), None)
