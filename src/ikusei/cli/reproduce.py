"""The command `ikusei reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ikusei.cli.common import out


def reproduce(
    *names: str,
    folder: Path = Path("runs/reproduced"),
    docs: Annotated[Path | None, Parameter(name="--out")] = None,
    seeds: int = 3,
) -> int:
    """Try the field's claims again on this machine, each with criteria that were fixed beforehand. What was measured is kept.

    Parameters
    ----------
    names
        Claims by name, `quick` (ten minutes), or `all` (hours). Without a name they are listed.
    folder
        Where runs and figures are kept.
    docs
        Write reproduced.md and its figures there, of all that has been measured.
    seeds
        How many; a verdict in reproduced.md needs all three.
    """
    from ikusei.reproduce import CLAIMS, page, running  # torch

    if not names and docs is None:
        for name in CLAIMS:
            claim = running.load(name)
            out.print(f"[bold]{name}[/]{' (quick)' if claim.quick else ''}  {claim.says}", highlight=False)
        return 0
    if not 1 <= seeds <= len(running.SEEDS):
        raise ValueError(f"reproduce: got --seeds {seeds}; allowed: 1 to {len(running.SEEDS)}")
    wanted, failed = running.chosen(names), False
    for done in running.carry_out(wanted, folder, running.SEEDS[:seeds]):
        failed = failed or done.problem is not None
        out.print(f"{done.name}, seed {done.seed}: {done.problem or f'{done.seconds:.0f} s'}", highlight=False)
    for name in wanted:
        claim, rows = running.load(name), running.results(folder, name, running.SEEDS[:seeds])
        if rows:
            found = [row["found"] for row in rows]
            verdict = claim.verdict(found) if len(rows) == len(running.SEEDS) else f"{len(rows)} of {len(running.SEEDS)} seeds"
            out.print(f"\n[bold]{name}[/]  {verdict}  [dim]{claim.says}[/]", highlight=False)
            for criterion in claim.criteria:
                out.print(
                    "   ", criterion.says, "  ", "  ".join(page.shown(criterion, each) for each in found), markup=False, highlight=False
                )
    if docs is not None:
        out.print(f"wrote {page.write(folder, docs)}")
    return int(failed)
