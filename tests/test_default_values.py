"""The numbers that stand behind the name of an algorithm, and the local policy's: a recipe that says nothing gets these."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ikusei.algos import ALGORITHMS, named_values
from ikusei.backends.local import LocalSettings
from ikusei.recipe.schema import read_recipe

CLIPS = {"clip_low": 0.2, "clip_high": 0.2}
GRPO: dict[str, Any] = {
    **CLIPS, "scale_rewards": "none", "aggregate": "token", "kl_coef": 0.0, "kl_estimator": "k3",
    "entropy_coef": 0.0, "target_entropy": None, "entropy_step": 0.001,
}  # fmt: skip
PPO: dict[str, Any] = {
    "clip": 0.2, "clip_value": 0.2, "vf_coef": 0.1, "gamma": 1.0, "gae_lambda": 0.95, "kl_coef": 0.05, "target_kl": None,
    "horizon": 10_000, "missing_eos_score": -1.0, "whiten_rewards": False,
}  # fmt: skip
BEHIND: dict[str, dict[str, Any]] = {
    "lm": {},
    "bradley_terry": {"center_coef": 0.0, "ties": "drop"},
    "plackett_luce": {},
    "ppo": PPO,
    "grpo": GRPO,
    "dr_grpo": GRPO,
    "dapo": {**GRPO, "scale_rewards": "group", "clip_high": 0.28},
    "lite_ppo": {**GRPO, "scale_rewards": "batch"},
    "gspo": {"clip_low": 3e-4, "clip_high": 4e-4, "scale_rewards": "group"},
    "cispo": {"ratio_low": 0.0, "ratio_high": 5.0, "scale_rewards": "group"},
    "gdpo": CLIPS,
    "rloo": {"kl_coef": 0.0, **CLIPS},
    "reinforce": {"baseline": False, "kl_coef": 0.0, **CLIPS},
    "reinforce_baseline": {"baseline": True, "kl_coef": 0.0, **CLIPS},
    "online_dpo": {"beta": 0.1},
    "dpo": {"beta": 0.1, "label_smoothing": 0.0, "per_token": False, "nll_coef": 0.0, "length_coef": 0.0},
    "robust_dpo": {"beta": 0.1, "flip_rate": 0.1},
    "ipo": {"tau": 0.1, "per_token": False},
    "hinge": {"beta": 0.1},
    "apo": {"beta": 0.1, "kind": "zero"},
    "simpo": {"beta": 2.0, "gamma": 1.0},
    "orpo": {"coef": 0.1},
    "kto": {"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0},
}  # fmt: skip


VALUES = named_values()


@pytest.mark.parametrize("name", [*ALGORITHMS, *VALUES])
def test_the_name_of_an_algorithm_means_these_numbers(name: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(f"task: arithmetic\nalgorithm: {name}\n")
    algorithm: Any = read_recipe(path).algorithm
    module, _, kind = ALGORITHMS[VALUES[name]["name"] if name in VALUES else name].partition(":")
    assert (type(algorithm).__module__, type(algorithm).__name__) == (module, kind)
    assert asdict(algorithm) == BEHIND[name]


def test_what_a_policy_is_without_settings() -> None:
    assert asdict(LocalSettings()) == {
        "precision": "fp32", "layout": None, "threads": None, "num_slots": 128, "gradient_checkpointing": False, "lora": None,
        "weight_decay": 0.0, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "clip_norm": 1.0,
        "optimizer": "adamw", "offload_optimizer": False, "critic": "head",
    }  # fmt: skip
