"""Numbers and intervals as text, for reports and charts. In plain lines an interval formats itself (intervals.py)."""

from __future__ import annotations

from typing import Literal

from ikusei.intervals import Interval

Ordering = Literal["higher", "lower", "same"]


def ordering(old: Interval, new: Interval) -> Ordering:
    """How two figures compare: one is higher only where the intervals do not overlap."""
    if new.low > old.high:
        return "higher"
    return "lower" if new.high < old.low else "same"


def percent(share: float) -> str:
    return f"{100 * share:.1f}%" if 0 < share < 0.01 or 0.99 < share < 1 else f"{100 * share:.0f}%"


def digits(value: float, beside: tuple[float, ...] = ()) -> str:
    """About three significant digits, with as many decimals as the largest of the values `beside` it."""
    largest = max(map(abs, (value, *beside)))
    places = 3 if largest < 1 else 2 if largest < 10 else 1 if largest < 100 else 0
    text = f"{value:,.{places}f}"
    return (text if float(text.replace(",", "")) else text.lstrip("-")).replace("-", "−")


def number(value: float | None, share: bool) -> str:
    if value is None:
        return "–"
    return percent(value) if share else digits(value)


def span(interval: Interval, share: bool = True) -> str:
    if share:
        return f"{100 * interval.low:.0f}–{100 * interval.high:.0f}%"
    beside = (interval.value, interval.low, interval.high)
    return f"{digits(interval.low, beside)} to {digits(interval.high, beside)}"


def estimate(interval: Interval | None, share: bool) -> str:
    """A value with its interval in brackets."""
    if interval is None:
        return "–"
    value = percent(interval.value) if share else digits(interval.value, (interval.low, interval.high))
    return f"{value} ({span(interval, share)})"


def gained(difference: Interval, share: bool = True, named: str = "95% interval ") -> str:
    """A difference with its interval; differences of shares in percentage points. `named` precedes the interval."""
    scale, unit = (100, " points") if share else (1, "")
    texts = [f"{scale * x:+.{0 if share else 1}f}".replace("-", "−") for x in (difference.value, difference.low, difference.high)]
    return f"{texts[0]}{unit} ({named}{texts[1]} to {texts[2]})"


def above_or_below(difference: Interval) -> Ordering:
    """The sign of a difference, where its interval does not contain 0."""
    return "higher" if difference.low > 0 else "lower" if difference.high < 0 else "same"


def change(old: float | None, new: float | None, share: bool) -> str:
    if old is None or new is None:
        return "–"
    return (f"{100 * (new - old):+.0f} points" if share else f"{new - old:+.3g}").replace("-", "−")


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def plural(count: int, one: str) -> str:
    return f"{count:,} {one}" if count == 1 else f"{count:,} {one}s"
