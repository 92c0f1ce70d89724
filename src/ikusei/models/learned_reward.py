"""A learned reward: a reward model, or an ensemble of them. It runs in the trainer's process, on whole batches of groups.

    mean          mean over members
    worst         minimum over members (worst-case optimisation)                  arXiv:2310.02743
    uncertainty   mean - coef * variance (uncertainty-weighted optimisation)      arXiv:2310.02743

A member reads the policy's tokens where both tokenizers are equal; otherwise it tokenizes prompt and response with its own.
Left out: members on other devices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from transformers import PreTrainedTokenizerBase

from ikusei.forest import plant
from ikusei.models.body import vocabulary_size
from ikusei.models.heads import RewardModel
from ikusei.models.load import load_reward_model, load_tokenizer
from ikusei.models.probe import probe
from ikusei.text.chat import continuation, render
from ikusei.types import Example, Group, Prompt, Response, RewardResult

Combine = Literal["mean", "worst", "uncertainty"]
TOKENS_PER_MICROBATCH = 16384  # of one forward pass


@dataclass(frozen=True)
class LearnedReward:
    """The settings of a reward with the path `learned`. `models` are folders or hub ids of reward models."""

    models: tuple[str, ...]
    combine: Combine = "mean"
    uncertainty_coef: float = 0.5

    @classmethod
    def read(cls, name: str, settings: Mapping[str, Any]) -> LearnedReward:
        """From the settings of a recipe, where `model: x` is short for `models: [x]`. Raises ValueError for settings that are not
        allowed."""
        given = dict(settings)
        if "model" in given and "models" not in given:
            given["models"] = [given.pop("model")]
        models, combine, coef = given.pop("models", None), given.pop("combine", "mean"), given.pop("uncertainty_coef", 0.5)
        sound = isinstance(models, (list, tuple)) and models and all(isinstance(model, str) for model in models)
        if given or not sound or combine not in get_args(Combine) or not isinstance(coef, (int, float)):
            raise ValueError(
                f"reward {name!r}: got settings {dict(settings)}; allowed: model (or models: [...]), combine "
                f"({', '.join(get_args(Combine))}) and uncertainty_coef; for example settings: {{model: runs/my-reward-model/final}}"
            )
        return cls(tuple(models), combine, float(coef))


class RewardEnsemble:
    """The loaded members. Called with groups, it returns the results of each response: a `guard.workers.InProcessReward`. With several
    members `<name>/spread` is the standard deviation over members."""

    def __init__(self, name: str, settings: LearnedReward, tokenizer: PreTrainedTokenizerBase) -> None:
        self.name, self.settings = name, settings
        self.members = [Member.load(name, model, tokenizer) for model in settings.models]

    @property
    def num_parameters(self) -> int:
        """Of all members."""
        return sum(weight.numel() for member in self.members for weight in member.model.model.parameters())

    @torch.no_grad()
    def __call__(self, groups: Sequence[Group]) -> list[list[dict[str, RewardResult]]]:
        by_member = [member.rewards(groups) for member in self.members]
        by_response = iter(zip(*by_member, strict=True))
        return [[self._combined(next(by_response)) for _ in group.responses] for group in groups]

    def _combined(self, values: Sequence[float | None]) -> dict[str, RewardResult]:
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return {self.name: RewardResult(None, "error", note="prompt and answer are longer than the reward model's context")}
        mean = math.fsum(known) / len(known)
        variance = math.fsum((value - mean) ** 2 for value in known) / len(known)
        combined = {"mean": mean, "worst": min(known), "uncertainty": mean - self.settings.uncertainty_coef * variance}
        value = combined[self.settings.combine]
        if not math.isfinite(value):
            return {self.name: RewardResult(None, "not_finite")}
        spread = {f"{self.name}/spread": RewardResult(variance**0.5, "ok")} if len(known) > 1 else {}
        return {self.name: RewardResult(value, "ok"), **spread}


@dataclass(frozen=True)
class Member:
    """One reward model; `tokenizer` is its own, None where it equals the policy's."""

    model: RewardModel
    tokenizer: PreTrainedTokenizerBase | None

    @classmethod
    def load(cls, name: str, model: str, tokenizer: PreTrainedTokenizerBase) -> Member:
        """Raises ValueError where the model is no reward model, or its embedding is smaller than its tokenizer."""
        weights, own = load_reward_model(model), load_tokenizer(model)
        size = vocabulary_size(weights)
        if size < len(own):
            raise ValueError(
                f"reward {name!r}: model {model!r} reads {size} tokens and its tokenizer has {len(own)}; "
                "put the tokenizer that it was trained with into its folder"
            )
        alike = own.get_vocab() == tokenizer.get_vocab() and own.chat_template == tokenizer.chat_template
        return cls(RewardModel(weights, probe(weights, RewardModel).layout), None if alike else own)

    def rewards(self, groups: Sequence[Group]) -> list[float | None]:
        """One reward for each response, in order; None where prompt and response do not fit the model's context."""
        if self.tokenizer is not None:
            groups = [anew(self.tokenizer, group) for group in groups]
        fits = [self._fits(group.prompt, response) for group in groups for response in group.responses]
        shortened = [self._fitting(group) for group in groups]
        computed = iter(self._rewards([group for group in shortened if group.responses]))
        return [next(computed) if fit else None for fit in fits]

    def _fits(self, prompt: Prompt, response: Response) -> bool:
        return len(prompt.tokens) + len(response.tokens) <= self.model.context

    def _fitting(self, group: Group) -> Group:
        """The group with the responses that fit the context, without a ranking."""
        return replace(group, tiers=None, responses=tuple(r for r in group.responses if self._fits(group.prompt, r)))

    def _rewards(self, groups: Sequence[Group]) -> list[float]:
        """Of each response of these groups, in order, computed in micro-batches."""
        if not groups:
            return []
        rewards: list[float] = []
        for microbatch in plant(groups).split(TOKENS_PER_MICROBATCH):
            reward_R = self.model.outputs(microbatch.to(self.model.device)).reward_R
            assert reward_R is not None, "a reward model gives rewards"
            rewards += reward_R.tolist()
        return rewards


def anew(tokenizer: PreTrainedTokenizerBase, group: Group) -> Group:
    """The group in another tokenizer's tokens. A truncated response stays without an end token."""
    prompt = render(tokenizer, Example(group.prompt.asked))
    return replace(group, prompt=prompt, responses=tuple(_answer(tokenizer, prompt, response) for response in group.responses))


def _answer(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, response: Response) -> Response:
    whole = continuation(tokenizer, prompt, response.text)
    if response.stop == "eos" or len(whole.tokens) == 1:
        return whole
    return replace(whole, tokens=whole.tokens[:-1], mask=whole.mask[:-1])
