"""Normalises a reward model: on samples of the reference policy its rewards get mean 0 and standard deviation 1, before and after
training.

    reward' = gain * reward + bias,   gain = 1 / std,  bias = -gain * mean        arXiv:1909.08593 and its code

A KL coefficient then means the same with every reward model, and a reward above 0 is better than the reference's average.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ikusei.forest import plant
from ikusei.protocols import ForwardPass
from ikusei.types import Group


@dataclass(frozen=True)
class NormaliseSettings:
    """`num_prompts` training prompts with `num_samples` samples each from the model that the reward model is initialised from; 0 prompts:
    no normalisation. Where that model is a reward model itself, which cannot sample, the responses of the data are used."""

    num_prompts: int = 64
    num_samples: int = 4

    def __post_init__(self) -> None:
        if self.num_prompts < 0 or self.num_samples < 1:
            raise ValueError(f"got num_prompts={self.num_prompts}, num_samples={self.num_samples}; allowed: 0 or more, 1 or more")


def mean_and_std(model: ForwardPass, groups: Sequence[Group], tokens_per_microbatch: int) -> tuple[float, float]:
    """Mean and standard deviation of the rewards of all responses. Raises ValueError where all rewards are equal."""
    outputs = [model.forward(microbatch).reward_R for microbatch in plant(groups).split(tokens_per_microbatch)]
    reward_R = torch.cat([each for each in outputs if each is not None]).double()
    mean, std = float(reward_R.mean()), float(reward_R.std(correction=0))
    if not std > 0:
        raise ValueError(
            f"{reward_R.numel()} reference samples all have the reward {mean:.3g}, so no scale makes their spread 1; "
            "raise sampling.temperature, or set train.normalise.num_prompts: 0"
        )
    return mean, std
