"""The scale of a reward model: on what the reference policy writes, its rewards get mean 0 and spread 1, before training and after it.

    reward' = gain * reward + bias,   gain = 1 / std,  bias = -gain * mean        arXiv:1909.08593 and its code

So a KL coefficient means the same with every reward model, and a reward above 0 is better than what the reference writes on average.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ikusei.forest import plant
from ikusei.protocols import Asked
from ikusei.types import Group


@dataclass(frozen=True)
class Normalising:
    """`num_prompts` training prompts with `num_samples` answers each of the model that the reward model is made from; 0: it is left as it
    comes out of training. Where that is a reward model already, which writes nothing, the responses of the data serve."""

    num_prompts: int = 64
    num_samples: int = 4

    def __post_init__(self) -> None:
        if self.num_prompts < 0 or self.num_samples < 1:
            raise ValueError(f"got num_prompts={self.num_prompts}, num_samples={self.num_samples}; allowed: 0 or more, 1 or more")


def mean_and_std(model: Asked, groups: Sequence[Group], tokens_per_microbatch: int) -> tuple[float, float]:
    """Of the rewards of all responses. Raises ValueError where they are all the same: then no scale makes their spread 1."""
    said = [model.forward(part).reward_R for part in plant(groups).split(tokens_per_microbatch)]
    reward_R = torch.cat([each for each in said if each is not None]).double()
    mean, std = float(reward_R.mean()), float(reward_R.std(correction=0))
    if not std > 0:
        raise ValueError(
            f"{reward_R.numel()} reference samples all have the reward {mean:.3g}, so no scale makes their spread 1; "
            "raise sampling.temperature, or set train.normalise.num_prompts: 0"
        )
    return mean, std
