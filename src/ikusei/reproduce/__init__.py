"""The field's claims, each as an experiment that one command makes again: `ikusei reproduce NAME | quick | all`.

A claim is a file of this folder with a `CLAIM` (claim.py) in it: what it says, how it is tried at small scale, what would show it. Its
criteria stood there before the seeds were run. Where a claim does not hold at this scale, that is said; it is a result.
"""

from __future__ import annotations

CLAIMS = (  # in the order in which they are told
    "lm_loss",
    "few_shot",
    "three_sets",
    "kl_estimators",
    "reward_model_data",
    "adaptive_kl",
    "over_optimisation_bon",
    "over_optimisation_rl",
    "ensembles",
    "displacement",
    "dpo_frontier",
    "filtered_dpo",
    "online_dpo",
    "zero_curve",
    "crossing",
    "steps_tradeoff",
    "cold_start",
    "length_bias",
    "clip_higher",
    "dynamic_sampling",
    "importance_sampling",
    "inference_scaling",
    "regularised_bon",
    "reward_hacks",
)
