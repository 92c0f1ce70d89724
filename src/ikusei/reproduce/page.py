"""docs/reproduced.md: a table of verdicts, and of each claim what it says, how it was tried, what each seed showed, and a figure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ikusei.eval_metrics.format import duration
from ikusei.report.svg import panels, standalone
from ikusei.reproduce import CLAIMS
from ikusei.reproduce.claim import Claim, Criterion, SeedResult
from ikusei.reproduce.running import SEEDS, load, results
from ikusei.run.files import plain, read_json, write_text
from ikusei.run.formats import FORMAT, must_be_readable

KEPT = ("seed", "setup", "found", "cpu_s", "git", "versions")
HEAD = """# The field's claims, tried again

Made by `ikusei reproduce all --out docs` (`quick` for the short ones, a name for one). Each claim's experiment and criteria stand in
`src/ikusei/reproduce/claims/<name>.py`, and stood there before these seeds were run; setups were tried beforehand with another seed.
Where a setup was changed after these seeds had been seen, it says "measured before" and what was found then. A claim **held** where every
criterion holds in each of three seeds, did **not hold** where some criterion holds in none, and is **undecided** at this scale otherwise.
Models are tiny and tasks simple: this says what these methods do here, and not what they do everywhere.
"""


def write(folder: Path, docs: Path) -> Path:
    """The page, its figures and what they were drawn from, of what has been measured in `folder`; of other claims what `docs` holds stays.
    Returns the page's path."""
    kept = docs / "reproduced"
    kept.mkdir(parents=True, exist_ok=True)
    whole = {}
    for name in CLAIMS:
        rows, file = results(folder, name), kept / f"{name}.json"
        if len(rows) == len(SEEDS):
            lines = ",\n".join(json.dumps(plain({"format": FORMAT} | {key: row.get(key) for key in KEPT})) for row in rows)
            write_text(file, f"[\n{lines}\n]\n")
        found = read_json(file) if file.exists() else []
        for row in found:
            must_be_readable(row, file)
        if found and all(row.get("setup") == load(name).setup for row in found):
            whole[name] = found
            write_text(kept / f"{name}.svg", picture(name, load(name), [row["found"] for row in found]))
    lines = [HEAD, *table(whole), *(line for name, rows in whole.items() for line in section(name, load(name), rows))]
    missing = [name for name in CLAIMS if name not in whole]
    if missing:
        lines.append(f"\nNot measured yet with the setup that stands in the code: {', '.join(missing)}.")
    write_text(docs / "reproduced.md", "\n".join(lines) + "\n")
    return docs / "reproduced.md"


def picture(name: str, claim: Claim, found: Sequence[SeedResult]) -> str:
    """The claim's figure as a file of its own."""
    return standalone(panels(name, claim.panels, lambda axes: claim.draw(axes, found)))


def table(measured: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    yield "| claim | verdict | CPU of a seed |"
    yield "|---|---|---|"
    for name, rows in measured.items():
        claim = load(name)
        verdict = claim.verdict([row["found"] for row in rows])
        taken = [row["cpu_s"] for row in rows if row["cpu_s"] is not None]
        took = duration(sum(taken) / len(taken)) if taken else "–"
        yield f"| [{name}](#{name}): {claim.says} | **{verdict}** | {took} |"


def section(name: str, claim: Claim, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    found = [row["found"] for row in rows]
    yield f"\n## {name}\n"
    yield f"{claim.says} ({claim.source})\n\n{claim.setup} Verdict: **{claim.verdict(found)}**.\n"
    yield "| criterion | " + " | ".join(f"seed {row['seed']}" for row in rows) + " |"
    yield "|---" * (len(rows) + 1) + "|"
    for criterion in claim.criteria:
        yield f"| {criterion.says} | {' | '.join(shown(criterion, each) for each in found)} |"
    yield f"\n![{name}](reproduced/{name}.svg)"


def shown(criterion: Criterion, found: SeedResult) -> str:
    """The figures, and whether they are as they must be."""
    return f"{criterion.shows(found)} {'✓' if criterion.holds(found) else '✗'}"
