"""The lines that `ikusei check` prints about a recipe: its data, memory, readiness, preference pairs and rewards."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from statistics import fmean, median

from ikusei.guard.outcomes import gold_names
from ikusei.loops.metrics import describe
from ikusei.loops.preference_gap import advice, preference_gap
from ikusei.models.logprobs import BLOCK_LOGITS, KEPT_LOGITS
from ikusei.preflight.preference_data import preference_data
from ikusei.preflight.readiness import Readiness
from ikusei.recipe.build import Components
from ikusei.recipe.schema import Recipe
from ikusei.tasks.files import Files
from ikusei.types import Group

ANSWERS = 8  # answers to each prompt of a recipe that collects
PAIRS, NEAR = 512, 64  # rows of preferences that are read, and that are compared with the model's own answers
LENGTH_ALONE = 0.6


def data_fact(recipe: Recipe, components: Components) -> str:
    rows = {split: recipe.task.num_rows(split) for split in ("train", "test")}
    counts = ", ".join(f"{'endless' if n is None else n} {split} rows" for split, n in rows.items())
    shape = f" of {recipe.task.shape}" if isinstance(recipe.task, Files) else ""
    first = min(64, rows["train"] or 64)
    what, lengths = "prompts", [len(prompt.tokens) for prompt in components.rows.prompts(0, first)]
    if not recipe.loop.samples:
        groups = components.rows.examples(0, first)
        what = "prompts with a response"
        lengths = [len(group.prompt.tokens) + len(response.tokens) for group in groups for response in group.responses]
    sizes = f"{what} of {min(lengths)} to {max(lengths)} tokens (median {median(lengths):g})"
    return f"{counts}{shape}; {sizes}; the model's context holds {components.policy.context}"


def memory_fact(recipe: Recipe, components: Components) -> str:
    """An upper estimate of memory, in bytes of fp32:

    state          weights, gradients and Adam's two moments, also of a critic; the weights of a reference and of reward models
    activations    what a micro-batch keeps for the backward: 17 numbers of hidden size for each token and layer (arXiv:2205.05198),
                   without attention scores
    logits         those that are kept, and one block of them with its gradient
    sampler        its keys and values
    """
    size = components.policy.size
    hidden, layers, parameters = size.hidden, size.layers, size.parameters
    others = sum(judge.num_parameters for judge in components.judges.values())
    refers = recipe.algorithm is not None and {"reference", "mismatched"} & recipe.algorithm.needs
    others += parameters * bool(refers and not recipe.policy.lora)  # with adapters it is the model without them
    state, activations, cache = 4 * parameters + 4 * others, 0, 0
    if recipe.train is not None:
        state = 16 * size.trained + 4 * size.frozen + 4 * others
        activations = (
            recipe.train.tokens_per_microbatch * hidden * 4 * (layers + 17 if recipe.policy.gradient_checkpointing else 17 * layers)
        )
    if recipe.loop.samples:
        cache = 8 * layers * hidden * recipe.policy.num_slots * min(recipe.sampling.max_tokens + 64, components.policy.context)
    export = 4 * parameters if recipe.policy.lora else 0  # the whole model once more, on the CPU, while it is saved
    total = state + activations + cache + export + 4 * KEPT_LOGITS + 12 * BLOCK_LOGITS
    pieces = {"weights and optimiser": state, "activations": activations, "sampler": cache} | ({"saving": export} if export else {})
    return f"about {_size(total)} at most beside torch itself: " + ", ".join(f"{name} {_size(size)}" for name, size in pieces.items())


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def readiness_facts(measured: Readiness) -> dict[str, str]:
    passing, headroom, form, overlap = measured.passing, measured.headroom, measured.form, measured.overlap
    count, size = len(measured.groups), passing.group_size
    room = "; " + ", ".join(f"{name} {each:.0%}" for name, each in headroom.pass_at.items()) + f" of {headroom.num_prompts}"
    even = f"at this pass rate for every prompt it would be {passing.forecast:.0%}"
    answers = passing.answers_per_useful_group
    cost = f"; one such group takes {answers:.0f} answers" if answers else ""
    facts = {
        "passes": f"{passing.pass_rate:.0%} of {count * size:,} answers to {count} prompts{room if headroom.num_prompts else ''}",
        "signal": f"{passing.signal:.0%} of groups of {size} have reward variance (a learning signal); {even}{cost}",
        "form": f"{form.complete:.0%} of answers end with something said, {form.truncated:.0%} are cut off",
    }
    if measured.chance:
        facts["chance"] = ", ".join(f"{name} passes on {share:.0%}" for name, share in measured.chance.items())
    if overlap.repeated or overlap.held_out:
        facts["prompts"] = f"{overlap.repeated} of {count} occur twice; {overlap.held_out} held-out prompts are among them"
    return facts


def preference_facts(recipe: Recipe, components: Components) -> tuple[dict[str, str], list[str]]:
    """Facts and warnings about preference data: how consistent it is, and for a language model its log-prob gap to the model's own
    samples."""
    count = recipe.task.num_rows("train") or PAIRS
    groups = [group for group in components.rows.used(min(count, PAIRS)) if group.pairs]
    data, policy = preference_data(groups), components.policy
    if data is None:
        return {}, []
    pairs = f"the longer answer is the better one in {data.longer:.0%} of {data.pairs:,} pairs"
    if data.agreement is not None:
        pairs += f"; {data.repeated} were judged more than once, and two judgements agree on {data.agreement:.0%}: no model is more right"
    facts, warnings = {"pairs": pairs}, []
    if data.longer.low > LENGTH_ALONE:
        warnings.append(
            f"length alone is right on {data.longer.value:.0%} of the pairs; balance them, or the model learns to like what is long"
        )
    if not policy.rewards:
        with components.workers() if components.rewards else nullcontext() as workers:
            gaps = preference_gap(policy, groups[:NEAR], recipe.sampling, recipe.seed, recipe.train.tokens_per_microbatch, workers)
        values = ", ".join(f"{name.removeprefix('gap/')} {gap:.2f}" for name, gap in gaps.items())
        facts["gap"] = f"log-prob gap to the model's own samples, nats per token: {values}"
        advised = advice(gaps)
        warnings += [advised + "; `ikusei check RECIPE --write FOLDER` makes them where a reward is named"] if advised else []
    return facts, warnings


def reward_fact(groups: Sequence[Group], has_signal: bool) -> str:
    """The mean reward; and, unless `signal` says it already, how many groups have reward variance."""
    mixed = sum(len(set(group.without_failures().totals)) > 1 for group in groups)
    totals = [total for group in groups for total in group.without_failures().totals]
    mean = f"mean reward {fmean(totals):.3g}" if totals else "no answer could be scored"
    return (
        mean
        if has_signal
        else f"{mean}; {mixed} of {len(groups)} groups of {ANSWERS} have answers of different worth, and only these give rows"
    )


def correlation_fact(groups: Sequence[Group], components: Components) -> str:
    """How the reward correlates with length and with the gold reward, where that was measured."""
    gold = gold_names(components.rewards)
    metrics = describe(groups, len(groups), gold)
    names = {"reward/length": "with length", "gold/agreement": f"with {' and '.join(gold)}"}
    return "".join(f"; among answers to one prompt it goes {name} by {metrics[key]:.2f}" for key, name in names.items() if key in metrics)
