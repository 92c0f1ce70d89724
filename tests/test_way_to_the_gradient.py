"""The house is small where it matters: a reader gets from the command to the gradient in few calls, through few lines."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from types import CodeType, FrameType

import pytest
import torch

import ikusei
from ikusei.cli.main import main

MAX_CALLS, MAX_LINES, MAX_LINES_OF_FILES = 5, 150, 900
SMALL = [
    "train.steps=1",
    "train.prompts_per_step=2",
    "train.num_responses=4",
    "sampling.max_tokens=24",
    "eval.num_prompts=0",
    "algorithm.kl_coef=0.1",
]
PACKAGE = Path(ikusei.__file__).parent


def test_from_the_command_to_backward_it_is_five_calls_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a real run: the functions of ours that are on the stack when torch is asked for the gradient."""
    monkeypatch.chdir(tmp_path)
    ways: list[list[CodeType]] = []
    backward = torch.Tensor.backward

    def seen(self: torch.Tensor, *given: object, **more: object) -> None:
        ways.append(list(ours(sys._getframe(1))))
        backward(self, *given, **more)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(torch.Tensor, "backward", seen)
    with pytest.raises(SystemExit) as ended:
        main(["train", "quickstart", *SMALL])
    assert ended.value.code == 0 and ways
    way = ways[0][1:]  # without `main`, which is of every command
    names = " → ".join(each.co_qualname for each in way)
    assert way[0].co_qualname == "train" and len(way) - 1 <= MAX_CALLS, names
    lines = {each.co_qualname: len(inspect.getsourcelines(each)[0]) for each in way}
    assert sum(lines.values()) <= MAX_LINES, lines
    files = {each.co_filename: len(Path(each.co_filename).read_text("utf-8").splitlines()) for each in way}
    assert sum(files.values()) <= MAX_LINES_OF_FILES, files


def ours(frame: FrameType | None) -> list[CodeType]:
    """From the outermost in."""
    found: list[CodeType] = []
    while frame is not None:
        if PACKAGE in Path(frame.f_code.co_filename).parents and frame.f_code.co_name != "<genexpr>":
            found.insert(0, frame.f_code)
        frame = frame.f_back
    return found
