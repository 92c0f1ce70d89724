"""One file an algorithm: frozen numbers, `credit` and `loss`. A new one is its file and its name here; the laws take it up.

A recipe finds them by name, and they are imported only where they are used, since they load torch.
"""

from __future__ import annotations

from typing import Any

ALGORITHMS = {
    "lm": "ikusei.algos.lm:LanguageModelling",
    "bradley_terry": "ikusei.algos.bradley_terry:BradleyTerry",
    "plackett_luce": "ikusei.algos.plackett_luce:PlackettLuce",
    "ppo": "ikusei.algos.ppo:PPO",
    "grpo": "ikusei.algos.grpo:GRPO",
    "gspo": "ikusei.algos.gspo:GSPO",
    "cispo": "ikusei.algos.cispo:CISPO",
    "gdpo": "ikusei.algos.gdpo:GDPO",
    "rloo": "ikusei.algos.rloo:RLOO",
    "reinforce": "ikusei.algos.reinforce:Reinforce",
    "online_dpo": "ikusei.algos.online_dpo:OnlineDPO",
    "dpo": "ikusei.algos.dpo:DPO",
    "robust_dpo": "ikusei.algos.robust_dpo:RobustDPO",
    "ipo": "ikusei.algos.ipo:IPO",
    "hinge": "ikusei.algos.hinge:Hinge",
    "apo": "ikusei.algos.apo:APO",
    "simpo": "ikusei.algos.simpo:SimPO",
    "orpo": "ikusei.algos.orpo:ORPO",
    "kto": "ikusei.algos.kto:KTO",
}


VALUES: dict[str, dict[str, Any]] = {  # names of values: a class of the table above, with other numbers
    "dr_grpo": {"name": "grpo", "scale_rewards": "none", "aggregate": "token"},
    "dapo": {"name": "grpo", "scale_rewards": "group", "aggregate": "token", "clip_high": 0.28},
    "lite_ppo": {"name": "grpo", "scale_rewards": "batch", "aggregate": "token"},
    "reinforce_baseline": {"name": "reinforce", "baseline": True},
}
