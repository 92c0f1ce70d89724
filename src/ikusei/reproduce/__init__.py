"""The field's claims, each as an experiment that one command makes again: `ikusei reproduce NAME | quick | all`.

A claim is a file of this folder with a `CLAIM` (claim.py) in it: what it says, how it is tried at small scale, what would show it. Its
criteria stood there before the seeds were run. Where a claim does not hold at this scale, that is said; it is a result.
"""

from __future__ import annotations

CLAIMS = (  # in the order in which they are told
    "kl_estimators",
    "crossing",
    "steps_tradeoff",
    "zero_curve",
    "cold_start",
    "length_bias",
    "clip_higher",
    "dynamic_sampling",
    "importance_sampling",
)
