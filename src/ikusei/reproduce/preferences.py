"""Pairs of answers, as rows for a recipe and as groups to be measured; used by the claims about DPO."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from ikusei.models.load import load_tokenizer
from ikusei.reproduce.measuring import logps
from ikusei.reproduce.workspace import Workspace
from ikusei.run.files import write_text
from ikusei.run.find import find_model
from ikusei.text.chat import continuation, render
from ikusei.types import Example, Group

PairRow = Mapping[str, Any]  # prompt, chosen, rejected


def pair(prompt: str, chosen: str, rejected: str) -> dict[str, str]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def as_task(workspace: Workspace, name: str, rows: Sequence[PairRow]) -> dict[str, Any]:
    """The section `task` of a recipe that learns from all of these rows, which are written into the workspace."""
    file = (workspace.folder / f"{name}.jsonl").resolve()
    write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return {"name": "files", "path": str(file), "test_share": 0}


def moved(model: str | Path, reference: str | Path, rows: Sequence[PairRow]) -> dict[str, float]:
    """How far training has moved the pairs' answers, in nats an answer: the means of d = log pi - log ref over chosen and over rejected
    ones, of their difference `h`, and the share of pairs whose h is above 0."""
    tokenizer = load_tokenizer(find_model(str(reference)))
    groups = []
    for row in rows:
        prompt = render(tokenizer, Example(row["prompt"]))
        groups.append(Group(prompt, tuple(continuation(tokenizer, prompt, row[side]) for side in ("chosen", "rejected"))))
    now, then = logps(model, groups), logps(reference, groups)
    chosen, rejected = ([a[side] - b[side] for a, b in zip(now, then, strict=True)] for side in (0, 1))
    h = [d - other for d, other in zip(chosen, rejected, strict=True)]
    return {"chosen": fmean(chosen), "rejected": fmean(rejected), "h": fmean(h), "accuracy": fmean(each > 0 for each in h)}
