"""Rewards that run what a model has written: the program is judged by its results, and its worker sits in a jail."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ikusei.guard.workers import RewardSpec, RewardWorkers
from ikusei.rewards.code import Code, program
from ikusei.types import Group, Part, Prompt, Response

CALLS = ({"call": "add(3, 4)", "result": "7"}, {"call": "add(-1, 4)", "result": "3"})
PRINTS = ({"input": "3 4\n", "output": "7"}, {"input": "10 -4\n", "output": "6\n"})
ADD = "def add(a, b):\n    return a + b"
SAYS = """
import os, socket, subprocess

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


def test_tests_of_another_form_are_told() -> None:
    with pytest.raises(ValueError, match=r"got \{'in': '3'\}; allowed"):
        asked(ADD, ({"in": "3"},))
    with pytest.raises(ValueError, match="got none; allowed"):
        asked(ADD, ())
    with pytest.raises(ValueError, match="seconds=0"):
        Code(seconds=0)
    assert program("<think>```python\nno\n```</think>```py\nyes\n```") == "yes"


@pytest.fixture(scope="module")
def jail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RewardWorkers, Path] | str]:
    """Workers in a jail and their log, or why this system cannot make one."""
    folder = tmp_path_factory.mktemp("jail")
    (folder / "says.py").write_text(SAYS)
    workers = RewardWorkers([RewardSpec("says", f"{folder / 'says.py'}:says", executes=True)], log=folder / "log")
    try:
        workers.start()
    except ValueError as error:
        yield str(error)
    else:
        yield workers, folder / "log"
        workers.close()


def said(jail: tuple[RewardWorkers, Path] | str, expression: str) -> str:
    """What an expression comes to inside; where there is no jail, that it was refused with the way out."""
    if isinstance(jail, str):
        assert "cannot isolate it" in jail and "unconfined: true" in jail
        return "refused"
    workers, log = jail
    workers.score([Group(Prompt("p", (1,), "?"), (Response((1,), (True,), expression),))])
    return log.read_text().rpartition(f"{expression} -> ")[2].strip()


@pytest.mark.parametrize(
    ("expression", "outcome"),
    [
        ("os.getuid()", "65534"),
        (f"open({__file__!r}).read()", "FileNotFoundError"),
        (f"os.path.exists({os.path.expanduser('~/.ssh')!r})", "False"),
        ("open('/usr/lib/x', 'w')", "OSError: [Errno 30]"),
        ("open('/tmp/x', 'w').write('1')", "1"),
        ("sorted(os.environ)", "['HOME', 'LANG', 'OMP_NUM_THREADS', 'PATH', 'TMPDIR']"),
        (f"os.kill({os.getpid()}, 9)", "ProcessLookupError"),
        ("os.chroot('/usr')", "PermissionError"),
        ("len([subprocess.Popen(['sleep', '5']) for _ in range(200)])", "BlockingIOError"),
    ],
)
def test_inside_there_is_nothing_to_be_had(jail: tuple[RewardWorkers, Path] | str, expression: str, outcome: str) -> None:
    assert said(jail, expression).startswith((outcome, "refused"))


def test_inside_there_is_no_network(jail: tuple[RewardWorkers, Path] | str) -> None:
    """A server that listens out here is not reached from in there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), 1):
            pass
        assert said(jail, f"socket.create_connection(('127.0.0.1', {port}), 1)").startswith(("OSError", "ConnectionRefused", "refused"))


def test_trouble_inside_is_typed_as_outside_and_the_next_call_is_inside_again(jail: tuple[RewardWorkers, Path] | str) -> None:
    if isinstance(jail, str):
        assert said(jail, "") == "refused"
        return
    workers, _ = jail
    fates = {"os._exit(3)": "exit code 3", "__import__('ctypes').string_at(0)": "SIGSEGV"}
    group = Group(Prompt("p", (1,), "?"), tuple(Response((1,), (True,), text) for text in fates))
    parts = [part for response in workers.score([group])[0].responses if response.score for part in response.score.parts.values()]
    assert [part.status for part in parts] == ["crashed"] * 2
    assert all(told in part.note for part, told in zip(parts, fates.values(), strict=True))
    assert said(jail, "os.getuid()") == "65534"


def test_rewards_that_are_trusted_stay_outside(tmp_path: Path) -> None:
    """Beside one that runs code, another reads its files as ever; and both score one group."""
    (tmp_path / "key.txt").write_text("0.75")
    (tmp_path / "reads.py").write_text(
        f"def reads(prompt, response, **columns):\n    return float(open({str(tmp_path / 'key.txt')!r}).read())\n"
    )
    specs = [RewardSpec("code", "code", unconfined=True), RewardSpec("reads", f"{tmp_path / 'reads.py'}:reads")]
    with RewardWorkers(specs) as workers:
        group = Group(Prompt("p", (1,), "?", {"tests": list(CALLS)}), (Response((1,), (True,), ADD), Response((1,), (True,), "no")))
        scores = [response.score for response in workers.score([group])[0].responses]
    parts = [{name: part.value for name, part in score.parts.items()} for score in scores if score]
    assert parts == [{"code": 1.0, "reads": 0.75}, {"code": 0.0, "reads": 0.75}]
    assert isinstance(next(iter(scores[0].parts.values())) if scores[0] else None, Part)
    assert RewardSpec("c", "code").jailed and not specs[0].jailed and not specs[1].jailed
