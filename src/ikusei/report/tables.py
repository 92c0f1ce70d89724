"""Tables of figures before and after: one line for each figure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ikusei.eval_metrics import answers, rows
from ikusei.eval_metrics.format import change, estimate, number
from ikusei.eval_metrics.metric import Figure, belongs
from ikusei.intervals import Interval
from ikusei.run.read import Evaluation


@dataclass(frozen=True)
class TableRow:
    """A line of a table; `bars` are drawn where the figure lies between 0 and 1."""

    label: str
    note: str
    before: str
    after: str
    change: str
    bars: tuple[Interval | None, Interval | None] | None


def table_of_answers(before: Evaluation | None, after: Evaluation | None) -> list[TableRow]:
    """Figures of sampled answers."""
    sampled = any(made.sampled for made in (before, after) if made)
    return list(lines(answers.FIGURES, before, after)) if sampled else []


def table_of_rows(before: Evaluation | None, after: Evaluation | None) -> list[TableRow]:
    """Figures of held-out rows, the user's own metrics included."""
    intervals = dict.fromkeys(key for made in (before, after) if made for key in made.intervals)
    own = [Figure(key) for key in intervals if belongs(key, every()) is None]
    return list(lines([*rows.FIGURES, *own], before, after))


def every() -> list[Figure]:
    """All figures that are known."""
    return [*answers.FIGURES, *rows.FIGURES]


def lines(figures: Iterable[Figure], before: Evaluation | None, after: Evaluation | None) -> Iterator[TableRow]:
    """A line for each figure that either evaluation has, with its interval where it has one."""
    for key, figure in shown(figures, [made for made in (before, after) if made]):
        a, b = (made.intervals.get(key) if made else None for made in (before, after))
        x, y = (made.number(key) if made else None for made in (before, after))
        label, note, share = figure.labelled(key), figure.noted(key), figure.share
        if a or b:
            cells = estimate(a, share), estimate(b, share), change(a and a.value, b and b.value, share)
            yield TableRow(label, note, *cells, (a, b) if share else None)
        elif x is not None or y is not None:
            yield TableRow(label, note, number(x, share), number(y, share), change(x, y, share), None)


def shown(figures: Iterable[Figure], made: Sequence[Evaluation]) -> Iterator[tuple[str, Figure]]:
    """What these evaluations have of each figure, by name: of a family those members that tables show."""
    present = dict.fromkeys(key for each in made for key in each.results)
    for figure in figures:
        keys = [key for key in present if key == figure.name or belongs(key, every()) is figure]
        if figure.members == "largest":
            keys = sorted(keys, key=figure.k)[-1:]
        yield from ((key, figure) for key in keys if figure.members != "none")
