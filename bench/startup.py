"""What starting costs, in seconds of the processor: a command's help, and `ikusei train` until the seedling's first token is drawn.

    python bench/startup.py OLD/src NEW/src [--rounds 9] [--only help]

Two checkouts take turns, so that what else runs on the machine falls on both; each number is the median of the rounds, each ratio that of
the two in one round, with its quartiles. Processes that the command started (the rewards' workers) count with it, also while they run.
`help` is also compared with a program of cyclopts that has one command and nothing of ours.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

BARE = """
from cyclopts import App
app = App(name="bare")
@app.command
def train(recipe: str, *overrides: str, folder: str | None = None) -> int:
    "Carry out a recipe."
    return 0
app(["train", "--help"], result_action="return_value")
"""
MAIN = """
import importlib, sys
cli = importlib.import_module("ikusei.cli")
main = cli.main if callable(getattr(cli, "main", None)) else importlib.import_module("ikusei.cli.main").main
"""
HELP = MAIN + 'main(["train", "--help"])'
# The module that draws tokens is given a `draw` that tells the seconds and ends the process; those of the workers are read from /proc.
FIRST_TOKEN = (
    """
import importlib.abc, importlib.machinery, os, resource, sys

def told():
    both = [resource.getrusage(each) for each in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seconds = sum(each.ru_utime + each.ru_stime for each in both)
    for place in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = open(f"/proc/{place}/stat").read().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds

class Hook(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "ikusei.samplers.draw":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            drawn = module.draw
            def draw(*given):
                drawn(*given)
                print("seconds", told(), file=sys.__stdout__, flush=True)
                sys.__stdout__.flush()
                os._exit(0)
            module.draw = draw
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Hook())
"""
    + MAIN
    + 'main(["train", sys.argv[1]])'
)


def seconds(code: str, source: Path | None, folder: str, *words: str) -> float:
    """Of the processor, until `code` has ended or has said how many."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(source or "")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=folder, env=environment, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    said = [line.partition(" ")[2] for line in done.stdout.splitlines() if line.startswith("seconds ")]
    return float(said[0]) if said else after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def show(name: str, rows: Sequence[Sequence[float]], which: tuple[str, ...]) -> None:
    """`rows` has a round a row; the ratios are to the first column."""
    columns = list(zip(*rows, strict=True))
    print(f"{name:12}", "  ".join(f"{each} {statistics.median(column):.3f} s" for each, column in zip(which, columns, strict=True)))
    for each, column in list(zip(which, columns, strict=True))[1:]:
        low, middle, high = statistics.quantiles([own / first for first, own in zip(columns[0], column, strict=True)])
        print(f"{'':12} {each} / {which[0]} {middle:.3f} ({low:.3f} to {high:.3f})")


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("old", type=Path)
    asked.add_argument("new", type=Path)
    asked.add_argument("--rounds", type=int, default=9)
    asked.add_argument("--only", choices=("help", "train"))
    given = asked.parse_args()
    old, new = given.old.resolve(), given.new.resolve()
    recipe = str(new.parent / "recipes" / "quickstart.yaml")
    sides = (old, new)
    with tempfile.TemporaryDirectory() as folder:
        if given.only != "train":
            runs = [lambda: seconds(BARE, None, folder), *(lambda side=side: seconds(HELP, side, folder) for side in sides)]
            show("help", rounds(runs, given.rounds), ("bare", "old", "new"))
        if given.only != "help":
            runs = [lambda side=side: seconds(FIRST_TOKEN, side, folder, recipe) for side in sides]
            show("first token", rounds(runs, given.rounds), ("old", "new"))


def rounds(runs: Sequence[Callable[[], float]], count: int) -> list[list[float]]:
    """Each of the runs once a round, every other round backwards; the first, which fills caches and writes .pyc files, does not count."""
    found = []
    for number in range(count + 1):
        order = list(range(len(runs)))[:: 1 if number % 2 else -1]
        taken = {place: runs[place]() for place in order}
        found.append([taken[place] for place in range(len(runs))])
    return found[1:]


if __name__ == "__main__":
    main()
