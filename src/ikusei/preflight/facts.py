"""What `ikusei check` says of a recipe, a line for each thing: data, memory, readiness, pairs, rewards."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from statistics import fmean, median

from ikusei.guard.outcomes import gold_names
from ikusei.loops.metrics import describe
from ikusei.loops.preference_gap import advice, preference_gap
from ikusei.models.logprobs import BLOCK_LOGITS, KEPT_LOGITS
from ikusei.preflight.preference_data import judgements
from ikusei.preflight.readiness import Readiness
from ikusei.recipe.build import Components
from ikusei.recipe.schema import Recipe
from ikusei.tasks.files import Files
from ikusei.types import Group

ANSWERS = 8  # answers to each prompt of a recipe that collects
PAIRS, NEAR = 512, 64  # rows of preferences that are read, and that are compared with the model's own answers
LENGTH_ALONE = 0.6


def data_told(recipe: Recipe, parts: Components) -> str:
    rows = {split: recipe.task.num_rows(split) for split in ("train", "test")}
    counts = ", ".join(f"{'endless' if n is None else n} {split} rows" for split, n in rows.items())
    shape = f" of {recipe.task.shape}" if isinstance(recipe.task, Files) else ""
    first = min(64, rows["train"] or 64)
    what, lengths = "prompts", [len(prompt.tokens) for prompt in parts.rows.prompts(0, first)]
    if not recipe.loop.samples:
        groups = parts.rows.examples(0, first)
        what = "prompts with a response"
        lengths = [len(group.prompt.tokens) + len(response.tokens) for group in groups for response in group.responses]
    told = f"{what} of {min(lengths)} to {max(lengths)} tokens (median {median(lengths):g})"
    return f"{counts}{shape}; {told}; the model's context holds {parts.policy.context}"


def memory_told(recipe: Recipe, parts: Components) -> str:
    """fp32 weights, gradients and two moments, also of a critic; what a part keeps for the backward (17 numbers of hidden size a token and
    layer, arXiv:2205.05198, without the attention scores); the logits that are kept, and a block of them with its gradient; keys and values
    of the sampler; the weights of a reference and of reward models."""
    size = parts.policy.size
    hidden, layers, parameters = size.hidden, size.layers, size.parameters
    asked = sum(judge.num_parameters for judge in parts.judges.values())
    refers = recipe.algorithm is not None and {"reference", "mismatched"} & recipe.algorithm.needs
    asked += parameters * bool(refers and not recipe.policy.lora)  # with adapters it is the model without them
    state, activations, cache = 4 * parameters + 4 * asked, 0, 0
    if recipe.train is not None:
        state = 16 * size.trained + 4 * size.frozen + 4 * asked
        activations = (
            recipe.train.tokens_per_microbatch * hidden * 4 * (layers + 17 if recipe.policy.gradient_checkpointing else 17 * layers)
        )
    if recipe.loop.samples:
        cache = 8 * layers * hidden * recipe.policy.num_slots * min(recipe.sampling.max_tokens + 64, parts.policy.context)
    export = 4 * parameters if recipe.policy.lora else 0  # the whole model once more, on the CPU, while it is saved
    total = state + activations + cache + export + 4 * KEPT_LOGITS + 12 * BLOCK_LOGITS
    pieces = {"weights and optimiser": state, "activations": activations, "sampler": cache} | ({"saving": export} if export else {})
    return f"about {_size(total)} at most beside torch itself: " + ", ".join(f"{name} {_size(size)}" for name, size in pieces.items())


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def readiness_told(found: Readiness) -> dict[str, str]:
    count, size = len(found.groups), found.size
    room = "; " + ", ".join(f"{name} {each:.0%}" for name, each in found.headroom.items()) + f" of {found.deep}" if found.deep else ""
    even = f"at this pass rate for every prompt it would be {found.forecast:.0%}"
    cost = f"; a group that teaches takes {found.per_useful:.0f} answers" if found.per_useful else ""
    facts = {
        "passes": f"{found.pass_rate:.0%} of {count * size:,} answers to {count} prompts{room}",
        "signal": f"{found.signal:.0%} of groups of {size} teach; {even}{cost}",
        "form": f"{found.formed:.0%} of answers end with something said, {found.truncated:.0%} are cut off",
    }
    if found.chance:
        facts["guessing"] = ", ".join(f"{name} passes on {share:.0%}" for name, share in found.chance.items())
    if found.repeated or found.leaked:
        facts["prompts"] = f"{found.repeated} of {count} occur twice; {found.leaked} held-out prompts are among them"
    return facts


def pairs_told(recipe: Recipe, parts: Components) -> tuple[dict[str, str], list[str]]:
    """What preference data says of itself, and for a language model how far it lies from what that writes."""
    count = recipe.task.num_rows("train") or PAIRS
    groups = [group for group in parts.rows.used(min(count, PAIRS)) if group.pairs]
    found, policy = judgements(groups), parts.policy
    if found is None:
        return {}, []
    told = f"the longer answer is the better one in {found.longer:.0%} of {found.pairs:,} pairs"
    if found.agreement is not None:
        told += f"; {found.repeated} were judged more than once, and two judgements agree on {found.agreement:.0%}: no model is more right"
    facts, warnings = {"pairs": told}, []
    if found.longer.low > LENGTH_ALONE:
        warnings.append(
            f"length alone is right on {found.longer.value:.0%} of the pairs; balance them, or the model learns to like what is long"
        )
    if not policy.rewards:
        with parts.workers() if parts.rewards else nullcontext() as workers:
            far = preference_gap(policy, groups[:NEAR], recipe.sampling, recipe.seed, recipe.train.tokens_per_microbatch, workers)
        gaps = ", ".join(f"{name.removeprefix('gap/')} {each:.2f}" for name, each in far.items())
        facts["distance"] = f"nats a token less likely than what it writes itself: {gaps}"
        advised = advice(far)
        warnings += [advised + "; `ikusei check RECIPE --write FOLDER` makes them where a reward is named"] if advised else []
    return facts, warnings


def earned_told(groups: Sequence[Group], measured: bool) -> str:
    """What answers earn; and whether they differ, unless that was measured better."""
    mixed = sum(len(set(group.without_failures().totals)) > 1 for group in groups)
    totals = [total for group in groups for total in group.without_failures().totals]
    mean = f"mean reward {fmean(totals):.3g}" if totals else "no answer could be scored"
    told = f"{mean}; {mixed} of {len(groups)} groups of {ANSWERS} have answers of different worth, and only these give rows"
    return mean if measured else told


def goes_with_told(groups: Sequence[Group], parts: Components) -> str:
    """What the reward goes with, where it is more than a judgement of right and wrong."""
    gold = gold_names(parts.rewards)
    found = describe(groups, len(groups), gold)
    told = {"reward/length": "with length", "gold/agreement": f"with {' and '.join(gold)}"}
    return "".join(f"; among answers to one prompt it goes {said} by {found[name]:.2f}" for name, said in told.items() if name in found)
