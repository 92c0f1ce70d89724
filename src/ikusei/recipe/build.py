"""Build a validated recipe: policy, rows and rewards, each once. The only place that names the concrete classes of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ikusei.backends.local import LocalPolicy
from ikusei.guard.outcomes import RewardSpec
from ikusei.guard.workers import RewardWorkers
from ikusei.loops.data import Rows
from ikusei.loops.order import in_order
from ikusei.loops.reward_scale import NormaliseSettings
from ikusei.models.body import vocabulary_size
from ikusei.models.learned_reward import LearnedReward, RewardEnsemble
from ikusei.models.load import is_reward_model, load_model, load_reward_model, load_tokenizer
from ikusei.models.make import MakeModel, make_model, make_tokenizer
from ikusei.protocols import Policy
from ikusei.recipe.rows import held_out_rows, replayed_rows, texts_of, train_rows
from ikusei.recipe.schema import Recipe
from ikusei.recipe.validate import validate
from ikusei.samplers.load import load_sampler
from ikusei.types import Group


@dataclass(frozen=True)
class Components:
    """What a run works with. `replay_rows` belong to `replay_task`, if there is one; `judges` are the learned rewards, by name."""

    policy: Policy
    rows: Rows
    eval_rows: Rows
    replay_rows: Rows | None
    rewards: tuple[RewardSpec, ...]
    judges: dict[str, RewardEnsemble]

    def workers(self, log: Path | None = None) -> RewardWorkers:
        """Workers for the rewards, to be used in a `with` block."""
        return RewardWorkers(self.rewards, log=log, in_process=self.judges)


def build(recipe: Recipe) -> Components:
    """Load the model, the rows and the rewards. Raises ValueError where one of them is missing or unfit."""
    validate(recipe)
    policy = build_policy(recipe)
    tokenizer, context, specs = policy.tokenizer, policy.context, recipe.reward_specs
    rows, eval_rows = train_rows(recipe, tokenizer, context), held_out_rows(recipe, tokenizer, context)
    replay_rows = replayed_rows(recipe, tokenizer, context)
    judges = {
        spec.name: RewardEnsemble(spec.name, LearnedReward.read(spec.name, spec.settings), tokenizer) for spec in specs if spec.learned
    }
    return Components(policy, rows, eval_rows, replay_rows, specs, judges)


def build_policy(recipe: Recipe) -> Policy:
    """The policy around the recipe's model: a reward model where the algorithm needs one, else a language model."""
    bits = recipe.policy.lora.bits if recipe.policy.lora else None
    rewards = "reward" in recipe.needs
    if isinstance(recipe.model, MakeModel):
        if bits is not None:
            raise ValueError("policy.lora.bits: 4 bits are for a model that is loaded, and this one is made anew; drop it")
        if rewards:
            raise ValueError("model: made from a configuration, and the algorithm trains a reward model; begin it from a trained model")
        tokenizer = make_tokenizer(recipe.model, texts_of(recipe.task))
        return LocalPolicy(make_model(recipe.model, tokenizer, recipe.seed), tokenizer, recipe.policy, recipe.needs, recipe.seed)
    tokenizer = load_tokenizer(recipe.model)
    model = load_reward_model(recipe.model, recipe.seed, bits) if rewards else load_model(recipe.model, bits)
    if len(tokenizer) > vocabulary_size(model):
        raise ValueError(
            f"model {recipe.model!r}: its tokenizer has {len(tokenizer)} tokens and the model reads {vocabulary_size(model)}; they are "
            "not of one model: put the right tokenizer.json and tokenizer_config.json beside its config.json"
        )
    if rewards:
        model.config.pad_token_id = tokenizer.pad_token_id  # by which transformers finds the last token of a padded row
    return LocalPolicy(model, tokenizer, recipe.policy, recipe.needs, recipe.seed)


def with_probed_facts(recipe: Recipe, facts: Mapping[str, Any]) -> Recipe:
    """The recipe of a run that is resumed, with the threads and layout that were probed when it began (see `Policy.facts`)."""
    return replace(recipe, policy=replace(recipe.policy, threads=facts["threads"], layout=facts["layout"]))


def reference_groups(recipe: Recipe, components: Components, settings: NormaliseSettings) -> list[Group]:
    """Responses to training prompts from the model that a reward model starts from; the same at every call."""
    rows, policy = components.rows, components.policy
    num_rows = rows.task.num_rows("train")
    count = settings.num_prompts if num_rows is None else min(settings.num_prompts, num_rows)
    if not isinstance(recipe.model, str) or is_reward_model(recipe.model):
        return rows.examples(0, count)
    sampler = load_sampler(recipe.model, recipe.policy.num_slots, policy.facts["layout"])
    prompts = rows.prompts(0, count)
    return in_order(prompts, list(sampler.sample(prompts, settings.num_samples, recipe.sampling, recipe.seed)))
