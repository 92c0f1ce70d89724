"""Regularised best of n, against over-optimisation of the reward.   arXiv:2404.01054, 2502.12668

    kl             value_i = r_i + alpha log pi(y_i)                     close to the policy
    wasserstein    value_i = r_i + alpha mean over j of u(y_i, y_j)      close to its typical samples: MBR plus best of n
    length         value_i = r_i - alpha / |y_i|                         against short responses

alpha = 0 is best of n; alpha -> infinity the most probable response, or MBR. log pi is the sum over the response's tokens.

Left out: the stochastic forms, which draw from a distribution over the responses instead of choosing one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ikusei.search.best_of_n import rewards
from ikusei.search.mbr import MBR, Utility, overlap
from ikusei.search.method import MethodSpec
from ikusei.types import Response


@dataclass(frozen=True)
class Regularised:
    """`alpha` is in units of the reward."""

    by: Literal["kl", "wasserstein", "length"] = "wasserstein"
    alpha: float = 0.1
    utility: Utility = overlap

    def __post_init__(self) -> None:
        if self.by not in ("kl", "wasserstein", "length") or not 0 <= self.alpha < math.inf:
            raise ValueError(f"got by={self.by!r}, alpha={self.alpha}; allowed: kl, wasserstein or length, alpha 0 or more and finite")

    def values(self, responses: Sequence[Response]) -> list[float]:
        earned = rewards(responses)
        match self.by:
            case "kl":
                held = [math.fsum(response.logprobs or ()) for response in responses]
            case "wasserstein":
                held = MBR(self.utility).values(responses)
            case "length":
                held = [-1 / max(len(response.tokens), 1) for response in responses]
        return [reward + self.alpha * back for reward, back in zip(earned, held, strict=True)]


METHODS = (MethodSpec("regularised", "best_of_n, regularised towards typical answers", Regularised(), needs=("guide",), slow=True),)
