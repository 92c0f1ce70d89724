"""How a run ended: record it in the run folder, and print it for a person."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from ikusei.eval_metrics import answers, rows
from ikusei.guard.outcomes import FAILURES
from ikusei.intervals import Interval
from ikusei.loops.steps import RewardsFailed
from ikusei.loops.update import NonFinite
from ikusei.protocols import Metrics
from ikusei.run.files import read_lines
from ikusei.run.folder import Run, checkpoints, list_runs

FAILED = tuple(f"{metric}/" for metric in FAILURES.values())
EXIT = {"finished": 0, "failed": 1, "paused": 3, "interrupted": 130}


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its folder, the contents of summary.json, and what went wrong, if anything."""

    folder: Path
    summary: dict[str, Any]
    problem: str | None = None

    @property
    def exit_code(self) -> int:
        return EXIT[self.summary["status"]]


@dataclass
class Ending:
    """How a run ends; set by the code that runs it."""

    status: str = "finished"
    problem: str | None = None


@contextmanager
def recorded(run: Run, summary: Callable[[str], dict[str, Any]], report: Callable[[Path], object]) -> Iterator[Ending]:
    """A context around a run: whatever happens inside, the run folder records how it ended, with a summary and a report. Errors of the
    input, of rewards and of the disk are recorded; any other exception is a bug: it is recorded and raised."""
    ending = Ending()
    try:
        yield ending
    except (NonFinite, RewardsFailed, OSError, ValueError) as error:
        ending.status, ending.problem = "failed", str(error)
        run.event("error", text=ending.problem)
    except KeyboardInterrupt:
        ending.status = "interrupted"
    except BaseException as error:
        run.event("error", text=repr(error))
        run.finish(summary("failed"))
        raise
    run.finish(summary(ending.status))
    report(run.path)


def warning_of(metrics: Metrics) -> str | None:
    """What is wrong with this step, in words; None where nothing is."""
    failed = [(*name.split("/", 1), value) for name, value in metrics.items() if name.startswith(FAILED)]
    texts = [f"{kind.replace('_', ' ')} of {reward}: {value:g}" for kind, reward, value in failed]
    if metrics.get("completions/clipped_ratio", 0.0) > 0.8:
        texts.append("more than 80 % of the answers are cut off at sampling.max_tokens")
    if metrics.get("groups/kept") == 0.0:
        texts.append("no group of this step teaches anything: each one's answers all earned the same, or none could be scored")
    return "; ".join(texts) or None


def tell(outcome: Outcome, console: Console) -> None:
    """Print the last lines of a run: figures before and after, where the report is, and how to go on."""
    before, after = (outcome.summary["eval"].get(name, {}) for name in ("before", "after"))
    console.print()
    if outcome.problem:
        console.print(Text.assemble(("failed: ", "bold red"), outcome.problem))
    if outcome.summary["status"] != "finished":
        kept = [step for step, _ in checkpoints(outcome.folder)]
        stages = list_runs(outcome.folder)
        have = f"what was learned up to step {max(kept)} is kept" if kept else "nothing was learned yet"
        have = f"what {', '.join(stage.path.name for stage in stages)} did is kept" if stages else have
        paused = outcome.summary["status"] == "paused"
        mend = "mend the cause, then " if outcome.problem else "the watch has paused it: look, then " if paused else ""
        console.print(f"{have}; {mend}go on with   ikusei train --resume {outcome.folder}", markup=False, highlight=False)
    for log in sorted(outcome.folder.glob("**/events.jsonl")):  # of a pipeline also its stages'
        stage = "" if log.parent == outcome.folder else f" of {log.parent.name}"
        for alarm in (event for event in read_lines(log) if event["kind"] == "alarm"):
            console.print(Text.assemble(("alarm ", "bold red"), f"at step {alarm['step']}{stage}, {alarm['name']}: {alarm['text']}"))
    for name in (each.name for each in (*answers.FIGURES, *rows.FIGURES) if each.headline):
        if name in before and name in after:
            old, new = Interval.of(before[name]), Interval.of(after[name])
            console.print(Text.assemble(f"held-out {name}: {old} → ", (f"{new}", "bold green"), ", 95 % intervals"))
    console.print(f"report  {outcome.folder / 'report.html'}", markup=False, highlight=False, soft_wrap=True)
    if (outcome.folder / "final" / "generation_config.json").is_file():  # a reward model has none
        console.print(f"chat    ikusei chat {outcome.folder}", markup=False, highlight=False, soft_wrap=True)
