"""Plant the bugs of `mutants.py`, one at a time, in a copy of src, and see whether the tests that are named notice.

    python tests/mutants/plant.py                      all of them
    python tests/mutants/plant.py filter-ties window   these
    python tests/mutants/plant.py --jobs 2             on two processes

The working tree is never written to: src and tests are copied to a temporary folder, and what else the tests read (seedling, recipes, docs)
is linked there. First each selection of tests must pass as the code is; then each bug is put in, the tests run until the first failure, and
the bug is taken out again. A bug is noticed where a test fails; it does not apply where its old text does not stand in the file exactly
once, and then its record is to be mended. Ends with 1 where one is not noticed or does not apply. Not part of CI: it takes minutes. Each
run of pytest is forked from a process that has loaded the large libraries already, which halves the time.

To add a bug, add a record to `mutants.py`.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mutants import BUGS, Bug

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("src", "tests", "pyproject.toml")
LARGE = ("torch", "transformers.modeling_utils", "transformers.models.auto.modeling_auto", "transformers.generation", "pyarrow.parquet")
LIMIT_S = 180  # of one selection; a bug may well make something hang
NOTICED, UNNOTICED, DOES_NOT_APPLY, RED = "noticed", "UNNOTICED", "does not apply", "red without it"


@dataclass(frozen=True)
class Found:
    bug: Bug
    what: str
    seconds: float = 0.0
    by: str = ""  # the test that failed


def copy_of_the_tree(folder: Path) -> Path:
    folder.mkdir()
    for path in sorted(ROOT.iterdir()):
        if path.name in COPIED:
            ignored = shutil.ignore_patterns("__pycache__")
            _ = shutil.copytree(path, folder / path.name, ignore=ignored) if path.is_dir() else shutil.copy2(path, folder / path.name)
        elif not path.name.startswith("."):
            (folder / path.name).symlink_to(path)
    return folder


class Tree:
    """A copy of the repository in which tests run, one selection at a time. Each process has one of its own."""

    path = Path()


def take(trees: Any) -> None:
    Tree.path = trees.get()


def run(selection: Sequence[str]) -> tuple[bool, float, str]:
    """Whether the tests pass, the seconds, and the first failure. A selection that finds no test does not pass."""
    began, log = time.perf_counter(), Tree.path / "pytest.log"
    child = os.fork()
    if not child:
        os._exit(run_here(selection, log))
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if time.perf_counter() - began > LIMIT_S:
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.05)
    seconds, told = time.perf_counter() - began, log.read_text(errors="replace").splitlines()
    failed = [line for line in told if line.startswith(("FAILED", "ERROR"))] or told[-1:] or [f"ended by {status}"]
    passed = status == 0
    return passed, seconds, "" if passed else f"no end after {LIMIT_S} s" if seconds > LIMIT_S else failed[0]


def run_here(selection: Sequence[str], log: Path) -> int:
    """In the forked process. Its exit code."""
    os.setsid()
    os.chdir(Tree.path)
    with log.open("wb") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    sys.path[0] = str(Tree.path / "src")  # in the place of this script's folder
    os.environ["PYTHONPATH"] = sys.path[0]
    sys.modules["__main__"] = ModuleType("__main__")  # which processes that tests start would import again
    import ikusei

    if not Path(ikusei.__file__).is_relative_to(Tree.path):
        print(f"ERROR the tests would import {ikusei.__file__}, and not the copy in {Tree.path}", flush=True)
        return 3
    code = pytest.main([*selection, "-x", "-q", "-p", "no:cacheprovider", "--tb=no", "-rfE"])
    sys.stdout.flush()
    return int(code)


def as_it_is(selection: tuple[str, ...]) -> bool:
    """Whether the tests pass without a bug."""
    passed, seconds, told = run(selection)
    print(f"{'as it is' if passed else RED:<15} {seconds:5.1f} s  {' '.join(selection)}  {told}", flush=True)
    return passed


def planted(bug: Bug) -> Found:
    """What the tests say with the bug in place, which is taken out again."""
    file = Tree.path / "src" / "ikusei" / bug.file
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    if text.count(bug.old) != 1 or bug.old == bug.new:
        found = Found(bug, DOES_NOT_APPLY, by=f"the old text stands {text.count(bug.old)} times in {bug.file}")
    else:
        try:
            write(file, text.replace(bug.old, bug.new))
            passed, seconds, told = run(bug.selection)
        finally:
            write(file, text)
        found = Found(bug, UNNOTICED if passed else NOTICED, seconds, told)
    print(f"{found.what:<15} {found.seconds:5.1f} s  {bug.room + ' ' + bug.name:<36} {found.by}", flush=True)
    return found


def write(file: Path, text: str) -> None:
    """Without its compiled form, which Python would take for current where time and size are the same."""
    file.write_text(text, encoding="utf-8")
    for compiled in file.parent.glob(f"__pycache__/{file.stem}.*"):
        compiled.unlink()


def plant(bugs: Sequence[Bug], jobs: int) -> list[Found]:
    """Each bug in one of as many copies of the tree as there are jobs. Of a selection that fails as the code is nothing is learned."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in LARGE:
        importlib.import_module(name)
    forks = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory(prefix="planted-") as place:
        trees = forks.Queue()
        for number in range(jobs):
            trees.put(copy_of_the_tree(Path(place) / str(number)))
        with ProcessPoolExecutor(jobs, forks, take, (trees,)) as pool:  # whose processes may have children, as tests need
            selections = list(dict.fromkeys(bug.selection for bug in bugs))
            passing = dict(zip(selections, pool.map(as_it_is, selections), strict=True))
            whole = [bug for bug in bugs if passing[bug.selection]]
            found = dict(zip(whole, pool.map(planted, whole), strict=True))
    return [found.get(bug) or Found(bug, RED) for bug in bugs]


def table(found: Sequence[Found], seconds: float) -> str:
    """By room, as markdown."""
    rooms = dict.fromkeys(each.bug.room for each in found)
    every, noticed = Counter(each.bug.room for each in found), Counter(each.bug.room for each in found if each.what == NOTICED)
    missed = [(each.bug.room, f"{each.bug.name} ({each.what})") for each in found if each.what != NOTICED]
    told = {room: ", ".join(text for where, text in missed if where == room) for room in rooms}
    rows = [f"| {room} | {every[room]} | {noticed[room]} | {told[room] or '–'} |" for room in rooms]
    total = f"| **all** | **{len(found)}** | **{noticed.total()}** | {seconds:.0f} s |"
    return "\n".join(["| room | planted | noticed | not noticed |", "|---|---|---|---|", *rows, total])


def main() -> int:
    parser = argparse.ArgumentParser(description="Plant bugs, and see whether the tests notice.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="of bugs; all where none is named")
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    known = {bug.name: bug for bug in BUGS}
    assert len(known) == len(BUGS), "two bugs of one name"
    if unknown := [name for name in given.names if name not in known]:
        parser.error(f"no bug is called {', '.join(unknown)}; there are: {', '.join(known)}")
    began = time.perf_counter()
    found = plant([known[name] for name in given.names] or list(BUGS), max(1, given.jobs))
    print("\n" + table(found, time.perf_counter() - began))
    return int(any(each.what != NOTICED for each in found))


if __name__ == "__main__":
    sys.exit(main())
