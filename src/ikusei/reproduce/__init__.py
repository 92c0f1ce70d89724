"""The field's claims, each as an experiment that one command makes again: `ikusei reproduce NAME | quick | all`.

A claim is a file in claims/ with a `CLAIM` (claim.py): what it says, its setup at small scale, and the criteria, which were fixed before
the seeds were run. A claim that does not hold at this scale is a result too.

    running.py           runs claims, seed by seed, in processes of their own
    workspace.py         one seed's folder: runs and measurements are made once and kept
    page.py, drawing.py  docs/reproduced.md and its figures
    measuring.py         answers, rewards and log-probs of models
    expressions.py       a small arithmetic task that several claims use
    preferences.py       preference pairs                  proxies.py          reward models as proxies of a known gold reward
    graded_reward.py     a gold reward of five levels      simulated_raters.py gold rewards of simulated raters
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
