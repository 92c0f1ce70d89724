"""How many torch threads to use: a function of the size of the work alone, so that runs are reproducible."""

from __future__ import annotations

import torch
from torch import nn

from ikusei.forest import Forest

ALL_THREADS = torch.get_num_threads()
ONE_THREAD = 5e8  # parameters times tokens: below, one thread computes as fast as two
ONE_WRITES = 2_000_000  # parameters: below, one thread decodes faster, since a decoding step is many small operations


def use_threads(most: int, model: nn.Module, forest: Forest) -> None:
    """One thread for a small forward pass, else `most`."""
    torch.set_num_threads(1 if num_parameters(model) * forest.tokens_N.numel() < ONE_THREAD else most)


def num_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
