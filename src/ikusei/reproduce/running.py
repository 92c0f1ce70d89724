"""Run claims, seed by seed, in processes of their own: two at once with one thread each, which on two cores is faster than one after the
other with two threads. Results are kept, so the same command goes on after an interruption; a result with an older setup is measured anew.

    FOLDER/<claim>/seed-<n>/       setup.txt, its runs and measurements; found.json is written last
"""

from __future__ import annotations

import importlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ikusei.reproduce import CLAIMS
from ikusei.reproduce.claim import Claim
from ikusei.reproduce.workspace import Workspace
from ikusei.run.files import discard, read_record, write_record, write_text
from ikusei.run.provenance import provenance

SEEDS = (0, 1, 2)
AT_ONCE = 2
ONE = "import sys; from ikusei.reproduce.running import measure; measure(sys.argv[1], int(sys.argv[2]), sys.argv[3])"


@dataclass(frozen=True)
class Done:
    """One seed of a claim: how long it took, and why it failed, if it did."""

    name: str
    seed: int
    seconds: float
    problem: str | None = None


def load(name: str) -> Claim:
    """Raises ValueError for a name that is none."""
    if name not in CLAIMS:
        raise ValueError(f"reproduce: no claim {name!r}; allowed: all, quick, {', '.join(CLAIMS)}")
    return importlib.import_module(f"ikusei.reproduce.claims.{name}").CLAIM


def chosen(names: Sequence[str]) -> list[str]:
    """The claims that are meant by names, `all` and `quick`, in the order of the list."""
    wanted = {each for name in names for each in (CLAIMS if name == "all" else _quick() if name == "quick" else (name,))}
    for name in wanted:
        load(name)
    return [name for name in CLAIMS if name in wanted]


def _quick() -> list[str]:
    return [name for name in CLAIMS if load(name).quick]


def carry_out(names: Sequence[str], folder: Path, seeds: Sequence[int] = SEEDS) -> Iterator[Done]:
    """Every seed of every claim that has not been measured, as they end. One that fails leaves the others alone."""
    jobs = [(name, seed) for name in names for seed in seeds if not results(folder, name, (seed,))]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            for job in as_completed([pool.submit(_in_a_process, name, seed, folder) for name, seed in jobs]):
                yield job.result()
        except BaseException:  # Ctrl-C reaches those that run; none begins after it
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _in_a_process(name: str, seed: int, folder: Path) -> Done:
    began = time.monotonic()
    log = folder / name / f"seed-{seed}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("a", encoding="utf-8") as out:
        code = subprocess.run(
            [sys.executable, "-c", ONE, name, str(seed), str(folder)], stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=environment
        )
    why = log.read_text("utf-8").strip().splitlines()[-1:] if code.returncode else []
    return Done(name, seed, time.monotonic() - began, f"{' '.join(why)} (read {log})" if code.returncode else None)


def measure(name: str, seed: int, folder: str | Path) -> None:
    """One seed, here and now."""
    claim, place = load(name), _place(Path(folder), name, seed)
    setup = place.parent / "setup.txt"
    if not setup.exists() or setup.read_text("utf-8") != claim.setup:
        discard(place.parent)
        place.parent.mkdir(parents=True)
        write_text(setup, claim.setup)
    found = claim.measure(Workspace(place.parent, seed))
    write_record(place, {"found": found, "setup": claim.setup, "cpu_s": cpu_s(), **provenance()})


def cpu_s() -> float:
    """CPU seconds of this process and of its ended children."""
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def results(folder: Path, name: str, seeds: Sequence[int] = SEEDS) -> list[dict[str, Any]]:
    """What found.json says, of each seed that has been measured with the claim's present setup."""
    places = [_place(folder, name, seed) for seed in seeds]
    rows = [{"seed": seed, **read_record(place)} for seed, place in zip(seeds, places, strict=True) if place.exists()]
    return [row for row in rows if row.get("setup") == load(name).setup]


def _place(folder: Path, name: str, seed: int) -> Path:
    return folder / name / f"seed-{seed}" / "found.json"
