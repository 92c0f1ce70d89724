"""Ikusei (育成): raises a language model from raw text to a model people want to use, on the machine you have.

    import ikusei
    outcome = ikusei.train("quickstart", "train.steps=20")
    result = ikusei.answer(str(outcome.folder), "123+456=", think="vote", n=16)

The names below are loaded when they are first used, so that `import ikusei` costs nothing.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ikusei.algos.grpo import GRPO
    from ikusei.algos.lm import LanguageModelling
    from ikusei.backends.local import LocalPolicy, LocalSettings
    from ikusei.forest import Forest, Loss, Outputs, plant
    from ikusei.guard.workers import RewardSpec, RewardWorkers
    from ikusei.models.load import load_model, load_tokenizer
    from ikusei.pipeline.train import resume, train
    from ikusei.search.answer import answer
    from ikusei.search.beam import Beam
    from ikusei.search.budget import Budget
    from ikusei.search.repeated import RepeatedSampling, VoteInRounds
    from ikusei.search.repeated import RepeatedSampling as Drawn
    from ikusei.search.revision import Revision
    from ikusei.types import Example, Group, Prompt, Response, Sampling, Score

# A thread that waits for another one spins for a moment and then sleeps. By itself torch's OpenMP spins for a millisecond: where another
# program wants the same cores, that keeps the awaited thread from running, and small operations take fifty times as long. It counts only
# where torch is not loaded yet; whoever sets either variable decides.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

__version__ = "0.2.0"

_HOME = {
    "GRPO": "algos.grpo",
    "LanguageModelling": "algos.lm",
    "LocalPolicy": "backends.local",
    "LocalSettings": "backends.local",
    "Forest": "forest",
    "Loss": "forest",
    "Outputs": "forest",
    "plant": "forest",
    "RewardSpec": "guard.workers",
    "RewardWorkers": "guard.workers",
    "load_model": "models.load",
    "load_tokenizer": "models.load",
    "resume": "pipeline.train",
    "train": "pipeline.train",
    "Beam": "search.beam",
    "Budget": "search.budget",
    "RepeatedSampling": "search.repeated",
    "VoteInRounds": "search.repeated",
    "Revision": "search.revision",
    "answer": "search.answer",
    "Example": "types",
    "Group": "types",
    "Prompt": "types",
    "Response": "types",
    "Sampling": "types",
    "Score": "types",
}
_FORMER = {"Drawn": "RepeatedSampling"}  # old names, which still work

__all__ = [
    "GRPO", "Beam", "Budget", "Drawn", "Example", "Forest", "Group", "LanguageModelling", "LocalPolicy", "LocalSettings", "Loss", "Outputs",
    "Prompt", "RepeatedSampling", "Response", "Revision", "RewardSpec", "RewardWorkers", "Sampling", "Score", "VoteInRounds", "answer",
    "load_model", "load_tokenizer", "plant", "resume", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    name = _FORMER.get(name, name)
    if name not in _HOME:
        raise AttributeError(f"module 'ikusei' has no attribute {name!r}")
    from ikusei.models.first_import import loading

    with loading():
        return getattr(importlib.import_module(f"ikusei.{_HOME[name]}"), name)
