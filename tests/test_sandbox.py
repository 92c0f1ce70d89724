"""Rewards that run what a model has written: the program is judged by its results, and its worker sits in a sandbox."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ikusei.guard import worker_protocol
from ikusei.guard.sandbox import _furnished
from ikusei.guard.workers import RewardSpec, RewardWorkers
from ikusei.rewards.code import Code, program
from ikusei.types import Group, Prompt, Response, RewardResult

CALLS = ({"call": "add(3, 4)", "result": "7"}, {"call": "add(-1, 4)", "result": "3"})
PRINTS = ({"input": "3 4\n", "output": "7"}, {"input": "10 -4\n", "output": "6\n"})
ADD = "def add(a, b):\n    return a + b"
SAYS = """
import os, pickle, socket, subprocess

class Opens:
    def __init__(self, path): self.path = path
    def __reduce__(self): return open, (self.path, "w")

def shout(path):
    for each in range(3, 64):
        try:
            os.write(each, pickle.dumps(Opens(path)))
        except OSError:
            pass

def says(prompt, response, **columns):
    try:
        said = eval(response)
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
    print(response, "->", said, flush=True)
    return 1.0
"""


def asked(response: str, tests: tuple[dict[str, str], ...] = CALLS, **settings: float) -> float:
    return Code(seconds=settings.get("seconds", 2.0), partial=bool(settings.get("partial")))(Prompt("p", (1,), "?"), response, tests=tests)


@pytest.mark.parametrize(
    ("response", "worth"),
    [
        (ADD, 1.0),
        (f"<think>easy</think>First\n```\nold\n```\nthen\n```python\n{ADD}\n```\nDone.", 1.0),
        ("def add(a, b):\n    return 7", 0.0),
        (f"{ADD}\nimport sys; sys.exit(0)", 0.0),
        ("import os; os._exit(0)", 0.0),
        ("class A:\n    def __eq__(self, other): return True\n    def __repr__(self): return '7'\ndef add(a, b): return A()", 0.0),
        (f"{ADD}\nprint = lambda *_: None", 0.0),
        ("print('\7')\nprint('\3')\nraise SystemExit", 0.0),
        ("assert True", 0.0),
        ("", 0.0),
        ("x" * 30_000, 0.0),
        ("\0", 0.0),
        ("\ud800", 0.0),
    ],
)
def test_a_program_is_worth_what_its_calls_return(response: str, worth: float) -> None:
    assert asked(response) == worth


def test_a_program_may_read_and_print() -> None:
    adds = "a, b = map(int, input().split())\nprint(a + b)"
    assert asked(adds, PRINTS) == 1.0
    assert asked("print(7)", PRINTS) == 0.0 and asked("print(7)", PRINTS, partial=True) == 0.5
    assert asked(adds + "\nprint('and so on')", PRINTS) == 0.0


def test_a_program_that_does_not_end_costs_its_time_and_earns_nothing() -> None:
    assert asked("while True: pass", seconds=0.3) == 0.0


def test_what_is_called_may_print_too() -> None:
    assert asked("def add(a, b):\n    print('adding')\n    return a + b") == 1.0


def test_what_does_not_end_or_prints_without_end_is_worth_nothing_and_no_failure() -> None:
    """One time for all tests of an answer, a bound on what is read, and one that is long because it has to be."""
    began = time.monotonic()
    assert asked("while True: pass", PRINTS * 3, seconds=0.4) == 0.0
    assert time.monotonic() - began < 1.5
    assert asked("while True: print('x' * 1000)", PRINTS) == 0.0
    long = "x" * 60_000
    assert asked("print('x' * 60_000)", ({"input": "", "output": long},)) == 1.0
    assert asked("def f(n):\n    return 'x' * n", ({"call": "f(60_000)", "result": repr(long)},)) == 1.0


def test_a_share_of_the_tests() -> None:
    """One call of four raises, and one is wrong."""
    tests = tuple({"call": f"f({n})", "result": str(n)} for n in range(4))
    assert asked("def f(n):\n    return {1: 1, 2: 5, 3: 3}[n]", tests, partial=True) == 0.5


def test_tests_of_another_form_are_told() -> None:
    with pytest.raises(ValueError, match=r"got \{'in': '3'\}; allowed"):
        asked(ADD, ({"in": "3"},))
    with pytest.raises(ValueError, match="got none; allowed"):
        asked(ADD, ())
    with pytest.raises(ValueError, match="seconds=0"):
        Code(seconds=0)
    assert program("<think>```python\nno\n```</think>```py\nyes\n```") == "yes"


def allowed() -> bool:
    """Does this system allow namespaces? Asked apart from our own code, in a process with one thread."""
    flags = 0x20000 | 0x20000000 | 0x40000000 | (0x10000000 if os.getuid() else 0)
    probe = f"import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare({flags}) != 0)"
    return sys.platform == "linux" and subprocess.run([sys.executable, "-I", "-c", probe]).returncode == 0


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RewardWorkers, Path] | None]:
    """Workers in a sandbox and their log; None where the system allows none, and they were refused with the way out."""
    folder = tmp_path_factory.mktemp("sandbox")
    (folder / "says.py").write_text(SAYS)
    workers = RewardWorkers([RewardSpec("says", f"{folder / 'says.py'}:says", executes=True, timeout_s=2.0)], log=folder / "log")
    if allowed():
        workers.start()
        yield workers, folder / "log"
        workers.close()
    else:
        with pytest.raises(ValueError, match=r"cannot isolate it.*unconfined: true"):
            workers.start()
        yield None


def said(sandbox: tuple[RewardWorkers, Path] | None, expression: str) -> str | None:
    """What an expression comes to inside; None where there is no sandbox."""
    if sandbox is None:
        return None
    parts(sandbox, expression)
    return sandbox[1].read_text().rpartition(f"{expression} -> ")[2].strip()


def parts(sandbox: tuple[RewardWorkers, Path], *expressions: str) -> list[RewardResult]:
    group = Group(Prompt("p", (1,), "?"), tuple(Response((1,), (True,), each) for each in expressions))
    return [each.score.parts["says"] for each in sandbox[0].score([group])[0].responses if each.score]


@pytest.mark.parametrize(
    ("expression", "outcome"),
    [
        ("os.getuid() in (0, OWN)", "False"),
        (f"open({__file__!r}).read()", "FileNotFoundError"),
        (f"os.path.exists({os.path.expanduser('~/.ssh')!r})", "False"),
        ("open('/usr/lib/x', 'w')", ("OSError: [Errno 30]", "PermissionError")),
        ("open('/tmp/x', 'w').write('1')", "1"),
        ("os.listdir('/tmp')", "[]"),
        ("sorted(os.environ)", "['HOME', 'LANG', 'OMP_NUM_THREADS', 'PATH', 'TMPDIR']"),
        ("os.kill(OUTSIDE, 9)", "ProcessLookupError"),
        ("os.getpid(), os.getppid()", "(1, 0)"),
        ("[each for each in range(3, 64) if os.path.exists(f'/dev/fd/{each}')]", "[]"),
        ("os.chroot('/usr')", "PermissionError"),
        ("len([subprocess.Popen(['sleep', '5']) for _ in range(200)])", "BlockingIOError"),
    ],
)
def test_inside_there_is_nothing_to_be_had(sandbox: tuple[RewardWorkers, Path] | None, expression: str, outcome: str) -> None:
    """The file that one answer wrote is not there for the next."""
    found = said(sandbox, expression.replace("OUTSIDE", str(os.getpid())).replace("OWN", str(os.getuid())))
    assert found is None or found.startswith(outcome)


def test_inside_there_is_no_network(sandbox: tuple[RewardWorkers, Path] | None) -> None:
    """A server that listens out here is not reached from in there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), 1):
            pass
        found = said(sandbox, f"socket.create_connection(('127.0.0.1', {port}), 1)")
        assert found is None or found.startswith(("OSError", "ConnectionRefused"))


LEAVES = "[subprocess.Popen(['sleep', '60'], start_new_session=True) for _ in range(40)] and 1"


def test_what_an_answer_does_is_its_own_and_the_next_finds_nothing_of_it(sandbox: tuple[RewardWorkers, Path] | None) -> None:
    """It ends its process, crashes, hangs, leaves children, takes limits away, interrupts: typed, and its neighbours are scored."""
    fates = {
        "os._exit(3)": ("crashed", "exit code 3"),
        "__import__('ctypes').string_at(0)": ("crashed", "SIGSEGV"),
        "os.kill(0, 2) or 1": ("ok", ""),
        "os.kill(0, 15) or 1": ("ok", ""),
        LEAVES: ("ok", ""),
        "__import__('resource').prlimit(1, 7, (0, 0)) or 1": ("ok", ""),
        "__import__('time').sleep(60)": ("timeout", "more than 2 s"),
    }
    for expression, (status, told) in fates.items() if sandbox is not None else ():
        assert sandbox is not None, "seen above"
        found = parts(sandbox, "1", expression, "2")
        assert [each.status for each in found] == ["ok", status, "ok"], (expression, found)
        assert told in found[1].note and found[0].value == found[2].value == 1.0


def test_a_message_that_is_no_answer_is_a_crash_and_runs_nothing(sandbox: tuple[RewardWorkers, Path] | None, tmp_path: Path) -> None:
    """An answer that finds the way its worker speaks by, and sends a pickle that would write a file out here."""
    if sandbox is not None:
        found = parts(sandbox, f"shout({str(tmp_path / 'escaped')!r})", "2")
        assert [each.status for each in found] == ["crashed", "ok"]
    wrong = [b"[]x", b'{"a": 1}', b'[{"a": [NaN, "ok", 0, ""]}]', b'[{"a": [1, "fine", 0, ""]}]', b'[{"a": ["1", "ok", 0, ""]}]', b"[[1]]"]
    for message in wrong:
        with pytest.raises(ValueError):
            worker_protocol.read(message)
    given = [{"a": RewardResult(0.5, "ok", 0.1, "é"), "a/b": RewardResult(None, "timeout")}]
    assert worker_protocol.read(worker_protocol.written(given)) == given


def test_what_runs_code_does_not_run_outside_unasked(tmp_path: Path) -> None:
    """Also by another name than `code`."""
    with pytest.raises(ValueError, match="runs what the model has written; say so in the recipe: executes: true"):
        RewardWorkers([RewardSpec("c", "ikusei.rewards.code:Code")]).start()
    (tmp_path / "mine.py").write_text("from ikusei.rewards.code import Code\n\ndef mine(seconds=1.0):\n    return Code(seconds)\n")
    with pytest.raises(ValueError, match="executes: true"):
        RewardWorkers([RewardSpec("c", f"{tmp_path / 'mine.py'}:mine", settings={"seconds": 2.0})]).start()
    assert RewardSpec("c", "code").sandboxed and not RewardSpec("c", "code", unconfined=True).sandboxed


def test_rewards_that_are_trusted_stay_outside(tmp_path: Path) -> None:
    """Beside one that runs code another reads its files as ever; both score one group, in the recipe's order."""
    (tmp_path / "key.txt").write_text("0.75")
    (tmp_path / "reads.py").write_text(
        f"def reads(prompt, response, **columns):\n    return float(open({str(tmp_path / 'key.txt')!r}).read())\n"
    )
    specs = [RewardSpec("code", "code", unconfined=not allowed()), RewardSpec("reads", f"{tmp_path / 'reads.py'}:reads")]
    with RewardWorkers(specs) as workers:
        group = Group(Prompt("p", (1,), "?", {"tests": list(CALLS)}), (Response((1,), (True,), ADD), Response((1,), (True,), "no")))
        scores = [response.score for response in workers.score([group])[0].responses]
    found = [[(name, part.value) for name, part in score.parts.items()] for score in scores if score]
    assert found == [[("code", 1.0), ("reads", 0.75)], [("code", 0.0), ("reads", 0.75)]]


def test_where_packages_lie_in_tmp_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside there is another /tmp over them."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setattr("sys.prefix", folder)
        monkeypatch.syspath_prepend(folder)
        with pytest.raises(OSError, match=f"{folder}, and there is another /tmp inside; install them elsewhere"):
            _furnished()
