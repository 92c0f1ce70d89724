"""The record of a figure; compute a list of figures; find the figure of a name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from ikusei.run.read import Evaluation

SHARE = "share"  # the unit of a figure between 0 and 1, shown in per cent
Sentence = Callable[[Evaluation | None, Evaluation], str | None]  # of the evaluations before and after; None: there is nothing to say


@dataclass(frozen=True)
class Curve:
    """How a family is drawn over k: in the chart of this title, for every model as a `band` (its interval) or a dotted `line`, or once as a
    `baseline` in `dash`. With fewer than `fewest` points it is not drawn. The note is printed under the chart."""

    chart: str
    kind: Literal["band", "line", "baseline"] = "band"
    note: str = ""
    dash: tuple[float, float] = (1, 1.5)
    fewest: int = 2


@dataclass(frozen=True)
class Figure:
    """One figure, or a family of them: `maj@{k}` stands for maj@2, maj@4, ...; `rewards/{name}` for one of each reward.

    compute     from data of the class `of` to an interval, a number, or None where it does not apply; for a family to a mapping, by the
                text in the braces. None: computed elsewhere, for example a metric of the algorithm's loss
    label       its name in tables; "": `name`
    unit        SHARE, or a unit that follows the label
    note        an explanation for readers who do not know the figure
    large       its name among the large figures on top of a report; "": it is not one of them
    headline    whether it is printed at the end of a run, and measured again with few-shot examples (eval.shots)
    fallback    whether it is on top of a report only where no other figure is
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
        """The text in the braces, if the key is of this family ({} for a single figure), else None."""
        match = pattern(self.name).fullmatch(key)
        return None if match is None else match.groupdict()

    def k(self, key: str) -> int:
        """The number of answers; 1 where the name does not say."""
        return int((self.member(key) or {}).get("k", 1))

    def noted(self, key: str) -> str:
        return self.note.format(**(self.member(key) or {}))

    def labelled(self, key: str) -> str:
        """The label of one member, its unit included."""
        label = (self.label or self.name).format(**(self.member(key) or {}))
        return label if self.share or not self.unit else f"{label}, {self.unit}"


@lru_cache
def pattern(name: str) -> re.Pattern[str]:
    """A pattern for a name: {k} matches an integer, other braces any text."""
    literal, *rest = re.split(r"\{(\w+)\}", name)
    stands_for = {"k": "[0-9]+"}
    pairs = zip(rest[::2], rest[1::2], strict=True)
    return re.compile(re.escape(literal) + "".join(f"(?P<{key}>{stands_for.get(key, '.+')}){re.escape(text)}" for key, text in pairs))


def measure(figures: Iterable[Figure], evidence: object) -> dict[str, Any]:
    """{name: value} of every figure that is computed from data of this class and applies to it."""
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
    """The figure of this name, else the first family that it belongs to."""
    exact = [figure for figure in figures if figure.name == key]
    return next((figure for figure in (*exact, *figures) if figure.member(key) is not None), None)
