"""The commands `ikusei eval` and `ikusei compare`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.table import Table

from ikusei.cli.common import AsJson, out
from ikusei.models.first_import import loading

if TYPE_CHECKING:
    from ikusei.run.comparison import Comparison
    from ikusei.run.win_rate import WinRate


Page = Annotated[Path | None, Parameter(name="--out", help="Write the figures and their charts into this HTML file too.")]


def eval_(recipe: Path, *overrides: str, page: Page = None, as_json: AsJson = False) -> int:
    """Measure the recipe's model on its held-out prompts; `model=runs/<run>` measures what a run has raised."""
    from ikusei.intervals import Interval

    with loading():
        from ikusei.evaluation.measure import measure  # torch
    from ikusei.run.files import must_have_a_place

    must_have_a_place(page)
    results = measure(recipe, overrides, page)
    if as_json:
        print(json.dumps(results))
        return 0
    table = Table("", "value (95 % interval)", box=None, padding=(0, 2))
    for name, value in results.items():
        number = f"{value:.4g}" if isinstance(value, float) else str(value)
        table.add_row(name, f"{Interval.of(value)}" if isinstance(value, dict) else number)
    out.print(table)
    return 0


def compare(
    *models: str,
    judge: str | None = None,
    in_pairs: Annotated[bool, Parameter(negative=())] = False,
    tie: float = 1e-9,
    seed: int = 0,
    page: Page = None,
    as_json: AsJson = False,
) -> int:
    """What one model gains over another on the same held-out prompts, prompt by prompt; or, with a judge, how often its answers are better.

    Parameters
    ----------
    models
        Two of them, each a run folder, several with commas between (seeds of one recipe, read as one), with `:before` for the model that a
        run began with. One run alone is compared with what it began with.
    judge
        Whose word counts: a reward as recipes name one, a recipe, a reward model's folder, or a jsonl file of votes.
    in_pairs
        The judge reads two answers, one in the column `other`; it is asked in both orders.
    tie
        Numbers no further apart are a tie.
    seed
        Draws which order of a pair is asked first.
    """
    from ikusei.run import comparison  # numpy

    if len(models) not in (1, 2):
        raise ValueError(f"compare: got {len(models)} models; allowed: two, or one run; for example ikusei compare runs/a runs/b")
    one, other = models[0], models[1] if len(models) == 2 else f"{models[0]}:before"
    if judge is not None:
        if page is not None:
            raise ValueError("compare: got --judge and --out; allowed: one of them; the page shows what was right, not who wins")
        from ikusei.evaluation.judges import contest  # torch

        found = contest(one, other, judge, in_pairs, tie, seed)
    else:
        found = _comparison(one, other, page)
    if as_json:
        print(json.dumps(asdict(found), ensure_ascii=False))
    elif isinstance(found, comparison.Comparison):
        show_comparison(found)
    else:
        show_win_rate(found)
    return 0


def _comparison(one: str, other: str, page: Path | None) -> Comparison:
    """Compare by what was right; writes the page, if one is asked for."""
    from ikusei.run import comparison, files

    files.must_have_a_place(page)
    first, second = comparison.read_named(one), comparison.read_named(other)
    found = comparison.compare(first, second)
    if page is not None:
        from ikusei.report.evaluation import write_comparison  # matplotlib

        write_comparison(found, first, second, page)
    return found


def show_comparison(found: Comparison) -> None:
    """Prints the result."""
    table = Table("", f"{found.one} less {found.other} (95 % interval)", box=None, padding=(0, 2))
    for k, gain in found.gains.items():
        table.add_row(f"pass@{k}", f"{gain:+.3f}")
    table.add_row("length, tokens", f"{found.length:+.1f}")
    out.print(table)
    solved = f"solved by both {found.both}, by neither {found.neither}, only by the first {len(found.only_one)}, only by the second "
    out.print(solved + str(len(found.only_other)), highlight=False)
    for name, prompts in (("first", found.only_one), ("second", found.only_other)):
        for prompt in prompts[:3]:
            out.print(f"  only the {name}: {prompt[-100:]}", markup=False, highlight=False)
    if found.crossing is not None:
        out.print(f"the curves meet at k = {found.crossing:.3g}: with more tries than that the second reaches as far", highlight=False)


def show_win_rate(won: WinRate) -> None:
    """Prints the result."""
    table = Table("", f"{won.one} against {won.other} (95 % interval)", box=None, padding=(0, 2))
    table.add_row("win rate", f"{won.rate}")
    table.add_row("won, tied, lost", f"{won.wins:.3f}, {won.ties:.3f}, {won.losses:.3f}")
    if won.similar is not None:
        table.add_row("of similar length", f"{won.similar}, {won.num_similar} prompts")
    if won.to_first is not None:
        table.add_row("to the first shown", f"{won.to_first}; 0.5: its place does not matter")
    out.print(table)
    out.print(f"{won.num_verdicts:,} verdicts on {won.num_prompts:,} prompts; {won.failed:,} failed", highlight=False)
