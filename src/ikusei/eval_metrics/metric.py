"""The record of an evaluation metric (`Figure`); compute a list of metrics; look a metric up by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from ikusei.run.read import Evaluation

SHARE = "share"  # the unit of a metric between 0 and 1, shown in per cent
Sentence = Callable[[Evaluation | None, Evaluation], str | None]  # from the evaluations before and after training; None: no sentence


@dataclass(frozen=True)
class Curve:
    """How a family of metrics is plotted over k, in the chart with the title `chart`: per model as a `band` (its confidence interval) or a
    `line`, or once as a `baseline`; `dash` is the dash pattern of lines. A chart is left out if a band has fewer than `fewest` points.
    `note` is printed under the chart."""

    chart: str
    kind: Literal["band", "line", "baseline"] = "band"
    note: str = ""
    dash: tuple[float, float] = (1, 1.5)
    fewest: int = 2


@dataclass(frozen=True)
class Figure:
    """A metric, or a family of them: `maj@{k}` stands for maj@2, maj@4, ...; `rewards/{name}` for one metric per reward.

    of          the class of the data that it is computed from
    compute     a function of such data that returns an interval or a number, or None if the metric does not apply; for a family a mapping
                {text in the braces: value}. Without it the metric is computed elsewhere, such as one of the algorithm's loss
    label       its name in tables; "": `name`
    unit        SHARE, or a unit that follows the label
    note        an explanation for readers who do not know the metric
    sentence    what a report says about it
    large       its label in the large numbers at the top of a report; "": it is not shown there
    headline    whether it is printed at the end of a run, and evaluated again with few-shot examples (eval.shots)
    fallback    whether it is at the top of a report, and gives a sentence, only if no other metric does
    members     which members of a family the tables show
    """

    name: str
    label: str = ""
    of: type | None = None
    compute: Callable[[Any], Any] | None = None
    unit: str = ""
    note: str = ""
    sentence: Sentence | None = None
    curve: Curve | None = None
    large: str = ""
    headline: bool = False
    fallback: bool = False
    members: Literal["each", "largest", "none"] = "each"

    @property
    def share(self) -> bool:
        return self.unit == SHARE

    @property
    def stem(self) -> str:
        """`maj` of `maj@{k}`."""
        return self.name.partition("@")[0]

    def member(self, key: str) -> dict[str, str] | None:
        """{"k": "4"} for `maj@4` of `maj@{k}`; {} if `key` is the name of a metric without braces; None if it does not match."""
        match = pattern(self.name).fullmatch(key)
        return None if match is None else match.groupdict()

    def k(self, key: str) -> int:
        """The k in the metric's name; 1 if it has none."""
        return int((self.member(key) or {}).get("k", 1))

    def noted(self, key: str) -> str:
        """The note of one member."""
        return self.note.format(**(self.member(key) or {}))

    def labelled(self, key: str) -> str:
        """The label of one member, with its unit."""
        label = (self.label or self.name).format(**(self.member(key) or {}))
        return label if self.share or not self.unit else f"{label}, {self.unit}"


@lru_cache
def pattern(name: str) -> re.Pattern[str]:
    """A regular expression for a metric's name: {k} matches an integer, other braces any text."""
    literal, *rest = re.split(r"\{(\w+)\}", name)
    stands_for = {"k": "[0-9]+"}
    pairs = zip(rest[::2], rest[1::2], strict=True)
    return re.compile(re.escape(literal) + "".join(f"(?P<{key}>{stands_for.get(key, '.+')}){re.escape(text)}" for key, text in pairs))


def measure(figures: Iterable[Figure], evidence: object) -> dict[str, Any]:
    """{name: value} for every metric that is computed from data of the class of `evidence`, and applies to it."""
    results: dict[str, Any] = {}
    for figure in figures:
        if figure.compute is None or figure.of is not type(evidence):
            continue
        value = figure.compute(evidence)
        if isinstance(value, Mapping):
            [braces] = re.findall(r"\{\w+\}", figure.name)
            results |= {figure.name.replace(braces, str(member)): each for member, each in value.items()}
        elif value is not None:
            results[figure.name] = value
    return results


def belongs(key: str, figures: Sequence[Figure]) -> Figure | None:
    """The metric with the name `key`, else the first family that it belongs to; None if there is neither."""
    exact = [figure for figure in figures if figure.name == key]
    return next((figure for figure in (*exact, *figures) if figure.member(key) is not None), None)
