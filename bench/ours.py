"""Our side of a workload: the library's own loops, driven a step at a time."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from data import Listed, model_folder, read_rows
from sides import Asked, memory_mb, settle
from workloads import Workload

REWARD = f"{Path(__file__).parent / 'data.py'}:even_share"


def serve(asked: Asked, work: Workload, folder: Path) -> None:
    """Builds the loop and makes a step for each request."""
    from ikusei.loops.steps import StopRequest
    from ikusei.protocols import first_state

    began = model_class_imported(model_folder(work, folder))
    with ExitStack() as stack:
        loop = build(work, folder, stack)
        steps = loop.steps(0, first_state(loop.algorithm), StopRequest())
        policy = loop.policy
        said = {"threads": policy.threads, "layout": policy.description, "slots": policy.settings.num_slots}
        said |= {"startup": time.perf_counter() - began, "start_mb": memory_mb()}
        asked.ready({**said, "first": first_ids(work, loop.rows)})
        while True:
            began = time.perf_counter()
            step = next(steps)
            settle()
            asked.reply(described(step, time.perf_counter() - began))


def serve_skipping(asked: Asked, work: Workload, folder: Path) -> None:
    """The update alone, of one batch half of whose groups have equal rewards: all groups learned from, then those that teach."""
    from ikusei.forest import count
    from ikusei.loops.update import update
    from ikusei.protocols import first_state

    with ExitStack() as stack:
        loop = build(replace(work, lr=1e-9), folder, stack)  # so that every update finds the same weights
        longest_first = sorted(loop.sample(0)[0], key=lambda group: -sum(len(response.tokens) for response in group.responses))
        groups = [rewarded(group, g % 4 in (0, 3)) for g, group in enumerate(longest_first)]  # half of the tokens too
        kept = [group for group in groups if loop.algorithm.keep(group)]
        asked.ready({"threads": loop.policy.threads})
        while True:
            seconds = []
            for learned in (groups, kept):
                began = time.perf_counter()
                forest = loop.forest(learned, count(groups), first_state(loop.algorithm))
                for loss in loop.losses:
                    update(loop.policy, [(forest, loss)], loop.settings.tokens_per_microbatch, loop.settings.lr)
                seconds.append(time.perf_counter() - began)
            asked.reply({"whole": seconds[0], "skipped": seconds[1], "trees": trees_of(groups, [True] * len(groups))})


def rewarded(group: Any, teaches: bool) -> Any:
    """The group with rewards that differ, or that do not."""
    from ikusei.types import Score

    totals = [float(teaches and r % 2) for r in range(len(group.responses))]
    pairs = zip(group.responses, totals, strict=True)
    return replace(group, responses=tuple(replace(response, score=Score(total)) for response, total in pairs))


def model_class_imported(folder: Path) -> float:
    """The time when torch and the model's class are there: what comes after is our start-up."""
    import torch
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    assert MODEL_FOR_CAUSAL_LM_MAPPING[type(AutoConfig.from_pretrained(folder))] and torch.get_num_threads()
    return time.perf_counter()


def build(work: Workload, folder: Path, stack: ExitStack, seed: int = 0) -> Any:
    """`Online` or `Supervised`, as a recipe would put it together."""
    from ikusei.algos.bradley_terry import BradleyTerry
    from ikusei.algos.dpo import DPO
    from ikusei.algos.grpo import GRPO
    from ikusei.algos.lm import LanguageModelling
    from ikusei.backends.local import LocalPolicy, LocalSettings
    from ikusei.guard.outcomes import RewardSpec
    from ikusei.guard.workers import RewardWorkers
    from ikusei.loops.data import Rows
    from ikusei.loops.online import Online, OnlineSettings
    from ikusei.loops.precompute import Precompute, precompute_reference
    from ikusei.loops.supervised import Supervised, SupervisedSettings
    from ikusei.models.load import load_model, load_reward_model, load_tokenizer
    from ikusei.types import Sampling

    name = str(model_folder(work, folder))
    algorithm = {"grpo": GRPO, "skip": GRPO, "dpo": DPO, "reward": BradleyTerry, "sft": LanguageModelling}[work.kind]()
    needs, tokenizer = algorithm.needs, load_tokenizer(name)
    model = load_reward_model(name) if "reward" in needs else load_model(name)
    policy = LocalPolicy(model, tokenizer, LocalSettings(precision=work.precision), needs)
    rows = Rows(Listed(work.kind, tuple(read_rows(folder))), tokenizer, seed, in_order=True)
    steps = work.steps + work.warmup
    if work.kind in ("grpo", "skip"):
        spec = RewardSpec("right", "exact") if work.model is None else RewardSpec("even", REWARD)
        workers = stack.enter_context(RewardWorkers([spec]))
        settings = OnlineSettings(
            steps=steps,
            prompts_per_step=work.examples,
            num_responses=work.num_responses,
            lr=work.lr,
            tokens_per_microbatch=work.tokens_per_microbatch,
        )
        precompute = Precompute(needs, policy, None, settings.tokens_per_microbatch)
        return Online(policy, rows, workers, algorithm, Sampling(max_tokens=work.response), settings, seed, precompute)
    settings = SupervisedSettings(
        steps=steps,
        examples_per_step=work.examples,
        in_order=True,
        lr=work.lr,
        lr_shape="constant",
        tokens_per_microbatch=work.tokens_per_microbatch,
    )
    cached = None
    if "reference" in needs:
        reference = policy.reference()
        cached = precompute_reference(reference, rows.used(work.rows), folder / "reference.parquet", settings.tokens_per_microbatch)
    return Supervised(policy, rows, algorithm, settings, Precompute(needs, policy, None, settings.tokens_per_microbatch, cached))


def described(step: Any, seconds: float) -> dict[str, Any]:
    """What a step took, what it learned, and the lengths of what it read and wrote."""
    metrics = step.metrics
    online = "time/sample" in metrics
    clock = {name: metrics[f"time/{name}"] for name in ("sample", "reward", "train") if f"time/{name}" in metrics}
    totals = [response.total for group in step.groups for response in group.responses]
    learned = sum(totals) / len(totals) if online else metrics["loss"]
    scored = sum(sum(response.mask) for group in step.groups for response in group.responses)
    return {"seconds": seconds, **clock, "learned": learned, "tokens": scored, "trees": trees_of(step.groups, step.kept)}


def trees_of(groups: Any, kept: Any) -> list[tuple[int, list[int], bool]]:
    """Of each group the tokens of its prompt, those of its responses, and whether it was learned from."""
    return [
        (len(group.prompt.tokens), [len(response.tokens) for response in group.responses], keeps)
        for group, keeps in zip(groups, kept, strict=True)
    ]


def first_ids(work: Workload, rows: Any) -> list[Any]:
    """Of the first rows, as theirs are said to be."""
    count = min(4, work.examples)
    if work.kind in ("grpo", "skip"):
        return [list(prompt.tokens) for prompt in rows.prompts(0, count)]
    groups = rows.examples(0, 1 if work.kind == "reward" else count)
    return [[*group.prompt.tokens, *response.tokens] for group in groups for response in group.responses]
