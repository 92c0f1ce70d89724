"""Losses and gradients equal TRL's: its own trainers tokenise, collate and compute the loss, our algorithms do so through the forest.

Random tiny models in fp32, ragged batches, a reference that is not the policy; loss, metrics and every gradient but for rounding
(`worlds.ROUNDING`).

    DPOTrainer       sigmoid, sigmoid_norm, robust, ipo, hinge, apo_zero, apo_down; with sft
    KTOTrainer       the baseline z above and below 0, weights        CPOTrainer       simpo; sigmoid with label smoothing
    ORPOTrainer      the loss                                         RewardTrainer    pairs, margins, centring
    GRPOTrainer      grpo, bnpo, dapo, dr_grpo, cispo, GSPO, the KL   SFTTrainer       answers alone, whole texts
                     term, the entropy bonus                          RLOOTrainer      the loss

What differs by intention, each a test that says by exactly how much:
    sigmoid ignores label_smoothing         ours is cDPO, which TRL still has in CPO: there it is equal
    ipo is a mean over tokens               ours too with per_token; the paper's sum otherwise
    sft is a mean over the batch's tokens   ours over pairs of the mean over each chosen one's tokens, as in the paper
    ORPO learns the prompt too              ours the response alone
    KTO's mismatched answers are the row    ours come from another prompt
        before's, whatever its prompt
    micro-batches count alike               ours divides by the step's totals, so that it does not matter how a step is cut
    a ranking is rows of pairs              ours, in reward models, a mean over prompts of the mean over their pairs
    the KL is weighted by the ratio         ours is k3 as it stands, as TRL's is with use_bias_correction_kl=False
    dr_grpo divides by a constant           ours by the tokens; it rescales the rate

Left out: what TRL has not (PPO any more, R-DPO, cDPO with a reference, Plackett-Luce beyond pairs), and how GRPO's advantages are made.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ikusei.algos.apo import APO
from ikusei.algos.bradley_terry import BradleyTerry
from ikusei.algos.cispo import CISPO
from ikusei.algos.dpo import DPO
from ikusei.algos.grpo import GRPO
from ikusei.algos.gspo import GSPO
from ikusei.algos.hinge import Hinge
from ikusei.algos.ipo import IPO
from ikusei.algos.kto import KTO
from ikusei.algos.lm import LanguageModelling
from ikusei.algos.online_dpo import OnlineDPO
from ikusei.algos.orpo import ORPO
from ikusei.algos.plackett_luce import PlackettLuce
from ikusei.algos.rloo import RLOO
from ikusei.algos.robust_dpo import RobustDPO
from ikusei.algos.simpo import SimPO
from ikusei.backends.local import LocalPolicy, LocalSettings
from ikusei.forest import Forest, Outputs, plant
from ikusei.protocols import Algorithm, ForwardPass
from ikusei.types import Group, Response, Score
from laws import worlds

PLAIN = LocalSettings(layout="forest")
END = worlds.IDS.eos_token_id
LETTERS = [chr(ord("一") + token) for token in range(worlds.VOCABULARY)]  # a letter is a token, so that texts keep their tokens
Rows = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def trl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """TRL, imported late because it takes seconds. Its trainers make folders, and report to their maker unless told not to."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.chdir(tmp_path)
    trl = pytest.importorskip("trl", reason="TRL is not installed; `make install` does it (the extra `compare`)")
    importlib.import_module("datasets").disable_progress_bars()
    return trl


# ------------------------------------------------------------------------------------------------------------------ both sides


@dataclass(frozen=True)
class Step:
    """What one step would do."""

    loss: float
    gradients: dict[str, Tensor]
    metrics: dict[str, float] = field(default_factory=dict)


def combined(*terms: tuple[float, Step]) -> Step:
    """The steps, each times its number, added."""
    names = terms[0][1].gradients
    sums = {name: sum((share * step.gradients[name] for share, step in terms), torch.tensor(0.0)) for name in names}
    return Step(sum(share * step.loss for share, step in terms), sums)


def mean(steps: Sequence[Step]) -> Step:
    return combined(*((1 / len(steps), step) for step in steps))


def assert_equal(mine: Step, theirs: Step, metrics: Sequence[str] = ()) -> None:
    worlds.assert_metrics({"loss": mine.loss}, {"loss": theirs.loss})
    worlds.assert_close(mine.gradients, theirs.gradients)
    assert_metrics(mine, theirs, metrics)


def assert_metrics(mine: Step, theirs: Step, names: Sequence[str]) -> None:
    worlds.assert_metrics(*({name: step.metrics[name] for name in names} for step in (mine, theirs)))


def assert_different(mine: Step, theirs: Step) -> None:
    assert abs(mine.loss - theirs.loss) > 1e-3 * abs(theirs.loss)
    with pytest.raises(AssertionError, match="differ by more than"):
        worlds.assert_close(mine.gradients, theirs.gradients, relative=1e-3)


def ragged(seed: int, leaves: tuple[int, int] = (2, 3), prompt: tuple[int, int] = (1, 9), leaf: tuple[int, int] = (1, 8)) -> list[Group]:
    """Ranked groups, ties among them. Every token is scored and the last is the end token, because TRL has it so."""
    chance, groups = random.Random(seed), []
    for g, group in enumerate(worlds.make_groups(worlds.Shape(5, prompt, leaves, leaf), seed)):
        tiers = [chance.randrange(3) for _ in group.responses]
        tiers[0] += len(set(tiers)) == 1  # one pair at least
        responses = tuple(whole(response, label=1.0 if (g + r) % 3 else -1.0) for r, response in enumerate(group.responses))
        groups.append(replace(group, responses=responses, tiers=tuple(tiers), weight=1.0))
    return groups


def whole(response: Response, label: float) -> Response:
    tokens = (*response.tokens, END)
    logprobs = (*(response.logprobs or ()), -3.0)
    return Response(tokens, (True,) * len(tokens), "", logprobs, score=response.score, label=label)


def earning(group: Group) -> Group:
    """A loop that samples ranks by what was earned: the group with rewards that go down with its tiers."""
    responses = zip(group.responses, group.tiers or (), strict=True)
    return replace(group, responses=tuple(replace(response, score=Score(-float(tier))) for response, tier in responses))


def step_of(policy: LocalPolicy, forest: Forest, algorithm: Algorithm) -> Step:
    metrics = policy.forward_backward(forest, algorithm.loss)
    return Step(metrics["loss"], worlds.gradients(policy), metrics)


def ours(algorithm: Algorithm, groups: Sequence[Group], name: str = "qwen3", reference: ForwardPass | None = None) -> Step:
    policy = worlds.make_policy(name, PLAIN, needs=algorithm.needs)
    if "reward" in algorithm.needs:
        policy.causal.model.config.reward_bias = 0.0  # TRL's reward models have none
    reference = reference or worlds.make_policy(name, PLAIN, seed=1)
    seen = worlds.step_of(algorithm, policy, groups, reference, before=policy, temperature=1.0)
    return Step(seen.metrics["loss"], seen.gradients, seen.metrics)


class Silent:
    """A reference to which every token is certain: without a reference."""

    def forward(self, forest: Forest) -> Outputs:
        nothing_M = torch.zeros(forest.target_M.numel())
        return Outputs(nothing_M, nothing_M)


def text(tokens: Sequence[int]) -> str:
    return "".join(LETTERS[token] for token in tokens)


def make_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({letter: token for token, letter in enumerate(LETTERS)}, unk_token=LETTERS[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=LETTERS[0], eos_token=LETTERS[END])


def pair_rows(groups: Sequence[Group]) -> Rows:
    """A row for each pair of each ranking."""
    return [
        {
            "prompt": text(group.prompt.tokens),
            "chosen": text(group.responses[better].tokens),
            "rejected": text(group.responses[worse].tokens),
            **({} if group.margin is None else {"margin": group.margin}),
        }
        for group in groups
        for better, worse in group.pairs
    ]


def make_trainer(trl: Any, kind: str, rows: Rows, name: str = "qwen3", **settings: Any) -> Any:
    """One of TRL's trainers, of the same weights as `ours`. One batch holds all rows."""
    from datasets import Dataset  # as late as TRL, which brings it

    if kind in ("CPO", "ORPO"):
        trl = importlib.import_module(f"trl.experimental.{kind.lower()}")
    plain = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none", "disable_tqdm": True}
    args = getattr(trl, f"{kind}Config")("out", per_device_train_batch_size=len(rows), **plain, **settings)
    more = {"ref_model": worlds.make_model(name, seed=1)} if kind in ("DPO", "KTO") else {}
    more |= {"reward_funcs": lambda completions, **columns: [0.0 for _ in completions]} if kind in ("GRPO", "RLOO") else {}
    model = worlds.make_model(name, reward=kind == "Reward")
    return getattr(trl, f"{kind}Trainer")(
        model, args=args, train_dataset=Dataset.from_list(rows), processing_class=make_tokenizer(), **more
    )


def theirs(trl: Any, kind: str, rows: Rows, name: str = "qwen3", **settings: Any) -> Step:
    trainer = make_trainer(trl, kind, rows, name, **settings)
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(list(trainer.train_dataset)))
    said = trainer._stored_metrics if kind in ("CPO", "ORPO") else trainer._metrics
    return taken(trainer, loss, said["train"])


def taken(trainer: Any, loss: Tensor, said: dict[str, list[float]]) -> Step:
    loss.backward()
    gradients = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in trainer.model.named_parameters()}
    return Step(float(loss.detach()), gradients, {name: values[-1] for name, values in said.items()})


# --------------------------------------------------------------------------------------------------------------- preferences

BATCHES = {"qwen3": 0, "llama": 1}  # the model and the seed of its groups
REWARDS = ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies")
LOGPS = ("logps/chosen", "logps/rejected")
PER_TOKEN = LOGPS  # TRL's rewards are sums there, ours are what the loss compares

DPO_LOSSES: dict[str, tuple[Algorithm, dict[str, Any], Sequence[str]]] = {
    "sigmoid": (DPO(beta=0.3), {"loss_type": "sigmoid", "beta": 0.3}, REWARDS + LOGPS),
    "sigmoid, sampled": (OnlineDPO(beta=0.2), {"loss_type": "sigmoid", "beta": 0.2}, REWARDS + LOGPS),
    "sigmoid_norm": (DPO(beta=4.0, per_token=True), {"loss_type": "sigmoid_norm", "beta": 4.0}, PER_TOKEN),
    "robust": (RobustDPO(beta=0.2, flip_rate=0.15), {"loss_type": "robust", "beta": 0.2, "label_smoothing": 0.15}, REWARDS + LOGPS),
    "ipo": (IPO(tau=0.6, per_token=True), {"loss_type": "ipo", "beta": 0.6}, PER_TOKEN),
    "hinge": (Hinge(beta=0.2), {"loss_type": "hinge", "beta": 0.2}, REWARDS + LOGPS),
    "apo_zero": (APO(beta=0.2), {"loss_type": "apo_zero", "beta": 0.2}, REWARDS + LOGPS),
    "apo_down": (APO(beta=0.15, kind="down"), {"loss_type": "apo_down", "beta": 0.15}, REWARDS + LOGPS),
}


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("loss", DPO_LOSSES)
def test_losses_with_a_reference(trl: Any, loss: str, name: str) -> None:
    algorithm, settings, metrics = DPO_LOSSES[loss]
    groups = ragged(BATCHES[name])
    groups = [earning(group) for group in groups] if "tiers" in algorithm.needs else groups
    assert_equal(ours(algorithm, groups, name), theirs(trl, "DPO", pair_rows(groups), name, **settings), metrics)


@pytest.mark.parametrize("name", BATCHES)
def test_simpo(trl: Any, name: str) -> None:
    groups = ragged(BATCHES[name])
    settings = {"loss_type": "simpo", "beta": 2.5, "simpo_gamma": 0.8, "cpo_alpha": 0.0}
    assert_equal(ours(SimPO(beta=2.5, gamma=0.8), groups, name), theirs(trl, "CPO", pair_rows(groups), name, **settings), REWARDS)


def test_label_smoothing_is_not_ignored(trl: Any) -> None:
    groups = ragged(2)
    smoothed = ours(DPO(beta=0.2, label_smoothing=0.15), groups)
    ignored = theirs(trl, "DPO", pair_rows(groups), loss_type="sigmoid", beta=0.2, label_smoothing=0.15)
    assert_equal(ours(DPO(beta=0.2), groups), ignored)
    assert_different(smoothed, ignored)
    settings = {"loss_type": "sigmoid", "beta": 0.2, "label_smoothing": 0.15, "cpo_alpha": 0.0}
    without = ours(DPO(beta=0.2, label_smoothing=0.15), groups, reference=Silent())
    assert_equal(without, theirs(trl, "CPO", pair_rows(groups), **settings), REWARDS + LOGPS)


def test_ipo_is_a_sum(trl: Any) -> None:
    """Where all responses have n tokens, (d/n - 1/(2 tau))^2 is (d - 1/(2 tau/n))^2 / n^2."""
    groups, n = ragged(3, leaf=(4, 4)), 5
    per_token = theirs(trl, "DPO", pair_rows(groups), loss_type="ipo", beta=0.6)
    assert_equal(combined((1 / n**2, ours(IPO(tau=0.6 / n), groups))), per_token)
    assert_different(ours(IPO(tau=0.6), groups), per_token)


def test_nll_of_the_chosen_is_a_mean_over_pairs(trl: Any) -> None:
    groups = ragged(4)
    rows, settings = pair_rows(groups), {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.7], "beta": 0.2}
    mine, batch = ours(DPO(beta=0.2, nll_coef=0.7), groups), theirs(trl, "DPO", rows, **settings)
    assert_equal(mine, mean([theirs(trl, "DPO", [row], **settings) for row in rows]))
    assert_different(mine, batch)
    assert_equal(combined((1.0, ours(DPO(beta=0.2), groups)), (0.7, ours(LanguageModelling(), chosen(groups)))), batch)


def test_orpo_does_not_learn_the_prompt(trl: Any) -> None:
    groups = ragged(5)
    mine, batch = ours(ORPO(coef=0.4), groups), theirs(trl, "ORPO", pair_rows(groups), beta=0.4)
    assert_different(mine, batch)
    preference = combined((1.0, mine), (-1.0, ours(ORPO(coef=0.0), groups)))
    assert_equal(combined((1.0, preference), (1.0, ours(LanguageModelling(), texts(chosen(groups))))), batch)
    assert_metrics(mine, batch, REWARDS)


def test_orpo_after_prompts_of_one_token(trl: Any) -> None:
    """Nothing predicts a first token, so there is no prompt to be learned; a batch of one pair has no other mean."""
    groups = ragged(6, leaves=(2, 2), prompt=(1, 1))
    steps = [theirs(trl, "ORPO", [row], beta=0.4) for row in pair_rows(groups)]
    assert_equal(ours(ORPO(coef=0.4), groups), mean(steps))


def chosen(groups: Sequence[Group]) -> list[Group]:
    """The better response of each pair, alone."""
    return [replace(group, responses=(group.responses[better],), tiers=None) for group in groups for better, _ in group.pairs]


def texts(groups: Sequence[Group]) -> list[Group]:
    """Prompt and response as one text to be learned; its first token is predicted by nothing."""
    return [
        replace(group, prompt=replace(group.prompt, tokens=row[:1]), responses=(Response(row[1:], (True,) * (len(row) - 1), ""),))
        for group in groups
        for row in [group.prompt.tokens + group.responses[0].tokens]
    ]


def test_it_does_not_matter_how_a_step_is_cut(trl: Any) -> None:
    """TRL's step of two micro-batches is the mean of their means: of one pair and of the rest, the one counts as much as the rest."""
    groups = ragged(7)
    rows, settings = pair_rows(groups), {"loss_type": "sigmoid", "beta": 0.3}
    cut = mean([theirs(trl, "DPO", part, **settings) for part in (rows[:1], rows[1:])])
    assert_different(ours(DPO(beta=0.3), groups), cut)
    policy, reference = worlds.make_policy("qwen3", PLAIN), worlds.make_policy("qwen3", PLAIN, seed=1)
    parts = worlds.step_of(DPO(beta=0.3), policy, groups, reference).forest.split(25)
    assert len({part.better_P.numel() for part in parts}) > 1  # unequal parts
    assert_equal(combined(*((1.0, step_of(policy, part, DPO(beta=0.3))) for part in parts)), theirs(trl, "DPO", rows, **settings))


# ----------------------------------------------------------------------------------------------------------- labels and texts


def single_rows(groups: Sequence[Group]) -> Rows:
    """A row for each response, the last first: TRL puts the row before's answer under a prompt, ours goes the other way round."""
    return [
        {"prompt": text(group.prompt.tokens), "completion": text(response.tokens), "label": response.label == 1.0}
        for group in reversed(groups)
        for response in reversed(group.responses)
    ]


@pytest.mark.parametrize(("seed", "baseline"), [(1, "above 0"), (0, "0")])
def test_kto(trl: Any, seed: int, baseline: str) -> None:
    groups = ragged(seed, leaves=(1, 1))
    mine = ours(KTO(beta=0.2, desirable_weight=1.3, undesirable_weight=0.6), groups)
    there = theirs(trl, "KTO", single_rows(groups), beta=0.2, desirable_weight=1.3, undesirable_weight=0.6)
    assert ("above 0" if mine.metrics["kl"] > 0 else "0") == baseline
    assert_equal(mine, there, (*REWARDS[:3], *LOGPS, "kl"))


def test_kto_compares_with_answers_to_other_prompts(trl: Any) -> None:
    """With two answers to each prompt half of TRL's mismatched answers belong to their prompt after all. Given ours, it says the same."""
    groups = ragged(1, leaves=(2, 2))
    trainer = make_trainer(trl, "KTO", single_rows(groups), beta=0.2)
    mine, rows = ours(KTO(beta=0.2), groups), list(trainer.train_dataset)
    assert_different(mine, taken(trainer, trainer.compute_loss(trainer.model, trainer.data_collator(rows)), {}))
    others = [row["completion_ids"] for row in rows[-2:] + rows[:-2]]
    trainer = make_trainer(trl, "KTO", single_rows(groups), beta=0.2)
    batch = trainer.data_collator([{**row, "KL_completion_ids": other} for row, other in zip(rows, others, strict=True)])
    assert_equal(mine, taken(trainer, trainer.compute_loss(trainer.model, batch), {}))


@pytest.mark.parametrize("scored", ["answers", "texts"])
def test_language_modelling(trl: Any, scored: str) -> None:
    groups = ragged(8, leaves=(1, 1))
    mine = ours(LanguageModelling(), groups if scored == "answers" else texts(groups))
    rows = [{name: row[name] for name in ("prompt", "completion")} for row in single_rows(groups)]
    assert_equal(mine, theirs(trl, "SFT", rows, completion_only_loss=scored == "answers"), ("entropy",))


# --------------------------------------------------------------------------------------------------------------- reward models


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("center_coef", [0.0, 0.05])
def test_reward_model(trl: Any, center_coef: float, name: str) -> None:
    pairs = [replace(group, margin=0.3 + 0.2 * g) for g, group in enumerate(ragged(BATCHES[name], leaves=(2, 2)))]
    there = theirs(trl, "Reward", pair_rows(pairs), name, center_rewards_coefficient=center_coef or None)
    assert_equal(ours(BradleyTerry(center_coef), pairs, name), there, ("accuracy", "margin", "mean_reward"))


def test_reward_model_from_pairs_without_margin(trl: Any) -> None:
    pairs = ragged(9, leaves=(2, 2))
    there = theirs(trl, "Reward", pair_rows(pairs))
    for algorithm in (BradleyTerry(), PlackettLuce()):
        assert_equal(ours(algorithm, pairs), there, ("accuracy", "margin", "mean_reward"))


def test_each_ranking_counts_once(trl: Any) -> None:
    groups = ragged(10, leaves=(2, 4))
    mine = ours(BradleyTerry(), groups)
    assert_equal(mine, mean([theirs(trl, "Reward", pair_rows([group])) for group in groups]))
    assert_different(mine, theirs(trl, "Reward", pair_rows(groups)))


# ------------------------------------------------------------------------------------------------------------------------ GRPO

GRPO_LOSSES: dict[str, tuple[GRPO | GSPO, dict[str, Any]]] = {
    "dapo": (GRPO(clip_low=0.1, clip_high=0.28), {}),
    "bnpo": (GRPO(clip_low=0.3, clip_high=0.05, scale_rewards="group"), {}),
    "grpo": (GRPO(clip_low=0.15, clip_high=0.25, aggregate="sequence"), {}),
    "dapo, kl": (GRPO(clip_low=0.1, clip_high=0.28, kl_coef=0.4), {"use_bias_correction_kl": False}),
    "grpo, kl": (GRPO(aggregate="sequence", kl_coef=0.3), {"use_bias_correction_kl": False}),
    "dapo, entropy": (GRPO(clip_low=0.1, clip_high=0.28, entropy_coef=0.3), {"entropy_coef": 0.3}),
    "grpo, gspo": (GSPO(clip_low=0.05, clip_high=0.03), {"importance_sampling_level": "sequence"}),
}
CLIPPED = ("clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean", "entropy")


def sampled(seed: int) -> list[Group]:
    """Written by a policy near the one that learns, so that ratios lie on both sides of the clips."""
    groups, policy = ragged(seed, leaves=(2, 4)), worlds.make_policy("qwen3", PLAIN)
    forest = plant(groups)
    logp_RT = policy.forward(forest).logp_M.split([int(length) for length in forest.length_R])
    return worlds.with_logprobs(groups, [logp_T.tolist() for logp_T in logp_RT], noise=0.25)


def their_grpo(trl: Any, forest: Forest, algorithm: Any, loss_type: str, **settings: Any) -> Step:
    """TRL's loss of the batch that its sampling would have made of this forest: our advantages, old and reference log-probs."""
    high = algorithm.ratio_high if loss_type == "cispo" else algorithm.clip_high
    clips = {"epsilon": getattr(algorithm, "clip_low", 0.2), "epsilon_high": high, "num_generations": 2}
    trainer = make_trainer(trl, "GRPO", [{"prompt": LETTERS[3]}] * 2, loss_type=loss_type, **clips, **settings)
    trainer.beta = getattr(algorithm, "kl_coef", 0.0)  # a setting would load a reference from a folder; its log-probs are given here
    batch, length_R = grpo_batch(forest), [int(length) for length in forest.length_R]
    for name, stream in (("old_per_token_logps", "old_logp_M"), ("ref_per_token_logps", "ref_logp_M")):
        if stream in forest.streams:
            batch[name] = padded(forest[stream].split(length_R), "right")
    trainer.model.eval()  # outside its training loop there is no accumulation to divide by
    return taken(trainer, trainer.compute_loss(trainer.model, batch), trainer._metrics["eval"])


def grpo_batch(forest: Forest) -> dict[str, Tensor]:
    roots = [forest.tokens_N[tree.start : tree.start + tree.root] for tree in forest.trees for _ in tree.leaves]
    leaves = forest.target_M.split([int(length) for length in forest.length_R])
    return {
        "prompt_ids": padded(roots, "left"),
        "prompt_mask": padded([torch.ones_like(root) for root in roots], "left"),
        "completion_ids": padded(leaves, "right"),
        "completion_mask": padded([torch.ones_like(leaf) for leaf in leaves], "right"),
        "advantages": forest["advantage_R"],
        "num_items_in_batch": forest.length_R.sum(),
    }


def padded(rows: Sequence[Tensor], side: str) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_side=side)


def grpo_forest(algorithm: Algorithm, groups: Sequence[Group]) -> Forest:
    policy, reference = (worlds.make_policy("qwen3", PLAIN, seed=seed) for seed in (0, 1))
    return worlds.step_of(algorithm, policy, groups, reference, temperature=1.0).forest


@pytest.mark.parametrize("loss", GRPO_LOSSES)
def test_grpo(trl: Any, loss: str) -> None:
    algorithm, settings = GRPO_LOSSES[loss]
    forest = grpo_forest(algorithm, sampled(11))
    mine = step_of(worlds.make_policy("qwen3", PLAIN), forest, algorithm)
    assert min(mine.metrics[name] for name in CLIPPED) > 0  # both clips are at work
    there = their_grpo(trl, forest, algorithm, loss.partition(",")[0], **settings)
    watched = "entropy" if isinstance(algorithm, GSPO) else CLIPPED  # its shares are TRL's of responses, ours of tokens
    assert_equal(mine, there, (*CLIPPED, "kl") if "kl" in loss else [watched] if isinstance(watched, str) else watched)


def test_cispo(trl: Any) -> None:
    algorithm = CISPO(ratio_high=1.2)  # the bound of the ratio itself, as TRL's epsilon_high is there
    forest = grpo_forest(algorithm, sampled(14))
    mine = step_of(worlds.make_policy("qwen3", PLAIN), forest, algorithm)
    assert mine.metrics["clip_ratio/region_mean"] > 0
    assert_equal(mine, their_grpo(trl, forest, algorithm, "cispo"), ("entropy",))


def test_rloo(trl: Any) -> None:
    algorithm = RLOO(clip_low=0.1, clip_high=0.2)
    forest = grpo_forest(algorithm, sampled(15))
    mine = step_of(worlds.make_policy("qwen3", PLAIN), forest, algorithm)
    assert min(mine.metrics[name] for name in CLIPPED) > 0
    trainer = make_trainer(trl, "RLOO", [{"prompt": LETTERS[3]}] * 2, epsilon=0.1, epsilon_high=0.2, num_generations=2, beta=0.0)
    trainer.model.eval()
    batch = {**grpo_batch(forest), "old_logps": forest.sum_R(forest["old_logp_M"])}
    assert_equal(mine, taken(trainer, trainer.compute_loss(trainer.model, batch), trainer._metrics["eval"]), ("entropy",))


def test_kl_is_not_weighted_by_the_ratio(trl: Any) -> None:
    algorithm = GRPO(kl_coef=0.4)
    forest = grpo_forest(algorithm, sampled(12))
    mine = step_of(worlds.make_policy("qwen3", PLAIN), forest, algorithm)
    assert_different(mine, their_grpo(trl, forest, algorithm, "dapo"))


def test_dr_grpo_only_rescales(trl: Any) -> None:
    algorithm = GRPO(clip_low=0.1, clip_high=0.28)
    forest = grpo_forest(algorithm, sampled(13))
    there = their_grpo(trl, forest, algorithm, "dr_grpo", max_completion_length=32)
    share = forest.num_responses * 32 / forest.denominators.tokens
    assert_equal(step_of(worlds.make_policy("qwen3", PLAIN), forest, algorithm), combined((share, there)))
