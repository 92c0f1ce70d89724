"""A learned reward: one reward model, or an ensemble of them, asked in the trainer's process for whole batches of groups.

    mean          the average of the members
    worst         the smallest of them (worst-case optimisation)
    uncertainty   mean - coef * variance (uncertainty-weighted optimisation)      the last two: arXiv:2310.02743

A member reads the policy's tokens where its tokenizer is the policy's, else it renders prompt and answer with its own.
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
from ikusei.models.body import num_words
from ikusei.models.heads import RewardModel
from ikusei.models.load import load_reward_model, load_tokenizer
from ikusei.models.probe import probe
from ikusei.text.chat import continuation, render
from ikusei.types import Example, Group, Part, Prompt, Response

Combine = Literal["mean", "worst", "uncertainty"]
TOKENS_PER_PART = 16384  # laid out at one time


@dataclass(frozen=True)
class LearnedReward:
    """The settings of a reward with the path `learned`. `models` are folders or hub ids of reward models."""

    models: tuple[str, ...]
    combine: Combine = "mean"
    uncertainty_coef: float = 0.5

    @classmethod
    def read(cls, name: str, settings: Mapping[str, Any]) -> LearnedReward:
        """From what a recipe says; `model: x` is short for `models: [x]`. Raises ValueError where it is not right."""
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


class Judge:
    """Loaded members. A `guard.workers.Judge`: called with groups, it gives the parts of each response."""

    def __init__(self, name: str, settings: LearnedReward, tokenizer: PreTrainedTokenizerBase) -> None:
        self.name, self.settings = name, settings
        self.members = [Member.load(name, model, tokenizer) for model in settings.models]

    @property
    def num_parameters(self) -> int:
        """Of all members."""
        return sum(weight.numel() for member in self.members for weight in member.model.model.parameters())

    @torch.no_grad()
    def __call__(self, groups: Sequence[Group]) -> list[list[dict[str, Part]]]:
        said = [member.rewards(groups) for member in self.members]
        rows = iter(zip(*said, strict=True))
        return [[self._parts(next(rows)) for _ in group.responses] for group in groups]

    def _parts(self, values: Sequence[float | None]) -> dict[str, Part]:
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return {self.name: Part(None, "error", note="prompt and answer are longer than the reward model's context")}
        mean = math.fsum(known) / len(known)
        variance = math.fsum((value - mean) ** 2 for value in known) / len(known)
        combined = {"mean": mean, "worst": min(known), "uncertainty": mean - self.settings.uncertainty_coef * variance}
        value = combined[self.settings.combine]
        if not math.isfinite(value):
            return {self.name: Part(None, "not_finite")}
        spread = {f"{self.name}/spread": Part(variance**0.5, "ok")} if len(known) > 1 else {}
        return {self.name: Part(value, "ok"), **spread}


@dataclass(frozen=True)
class Member:
    """One reward model; `tokenizer` is its own where that is not the policy's."""

    model: RewardModel
    tokenizer: PreTrainedTokenizerBase | None

    @classmethod
    def load(cls, name: str, model: str, tokenizer: PreTrainedTokenizerBase) -> Member:
        """Raises ValueError where it is no reward model, or reads fewer tokens than its tokenizer has."""
        weights, own = load_reward_model(model), load_tokenizer(model)
        words = num_words(weights)
        if words < len(own):
            raise ValueError(
                f"reward {name!r}: model {model!r} reads {words} tokens and its tokenizer has {len(own)}; "
                "put the tokenizer that it was trained with into its folder"
            )
        alike = own.get_vocab() == tokenizer.get_vocab() and own.chat_template == tokenizer.chat_template
        return cls(RewardModel(weights, probe(weights, RewardModel).layout), None if alike else own)

    def rewards(self, groups: Sequence[Group]) -> list[float | None]:
        """One for each response, in order; None where it does not fit the model's context."""
        mine = groups if self.tokenizer is None else [anew(self.tokenizer, group) for group in groups]
        rows = [(group.prompt, response) for group in mine for response in group.responses]
        fits = [len(prompt.tokens) + len(response.tokens) <= self.model.context for prompt, response in rows]
        kept = iter(fits)
        laid = [replace(group, tiers=None, responses=tuple(r for r in group.responses if next(kept))) for group in mine]
        forest = plant([group for group in laid if group.responses]) if any(fits) else None
        parts = [] if forest is None else forest.split(TOKENS_PER_PART)
        said = iter([value for part in parts for value in self._said(part)])
        return [next(said) if fit else None for fit in fits]

    def _said(self, part: Any) -> list[float]:
        reward_R = self.model.outputs(part.to(self.model.device)).reward_R
        assert reward_R is not None, "a reward model says rewards"
        return reward_R.tolist()


def anew(tokenizer: PreTrainedTokenizerBase, group: Group) -> Group:
    """The group in another tokenizer's tokens. An answer that was cut off stays without an end."""
    prompt = render(tokenizer, Example(group.prompt.asked))
    return replace(group, prompt=prompt, responses=tuple(_answer(tokenizer, prompt, response) for response in group.responses))


def _answer(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, response: Response) -> Response:
    whole = continuation(tokenizer, prompt, response.text)
    if response.stop == "eos" or len(whole.tokens) == 1:
        return whole
    return replace(whole, tokens=whole.tokens[:-1], mask=whole.mask[:-1])
