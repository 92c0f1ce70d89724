"""TRL's side of a workload: its own trainers, gated by a callback at each end of a step.

A step is clocked from the end of the one before, so that fetching and collating its rows is in it as it is in ours. What is off: logging,
saving, evaluation, checkpointed gradients, pinned memory, telemetry. What was tried for speed is in `settings_to_try`.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data import END, Row, even_share, model_folder, read_rows
from sides import Asked, Ended, memory_mb, settle
from workloads import Workload

TRIAL_S, TRIALS_S = 8.0, 150.0  # after so long no further step of a setting is tried, and no further setting
PAGE = 32  # tokens in a page of the cache that continuous batching keeps
PACK, PACKS = 512, 16  # tokens in a pack, packs in a step: about as many tokens as our step has


PARTS = {  # into how many micro-batches a step is cut, in the order of trying
    "grpo": (1, 2, 4),
    "dpo": (1, 2, 4),
    "reward": (1, 2, 4),
    "packed": (16, 8, 4),
    "padded": (8, 16),  # as for large models, fewer parts would fill the memory
    "large": (4, 8),
}


@dataclass(frozen=True)
class Setting:
    """How TRL may compute a workload: torch threads, into how many micro-batches a step is cut, and whether it writes by transformers'
    continuous batching ("paged") or by `generate`."""

    threads: int
    parts: int
    paged: bool = False

    def __str__(self) -> str:
        return f"{self.threads} thread{'s' * (self.threads > 1)}, {self.parts} part{'s' * (self.parts > 1)}{', paged' * self.paged}"


def serve(asked: Asked, work: Workload, folder: Path, setting: Setting) -> None:
    """Builds the trainer and lets it make a step for each request."""
    train(
        build(work, folder, setting, work.steps + work.warmup),
        work,
        lambda said: asked.ready(said) if "first" in said else asked.reply(said),
    )


def serve_trials(asked: Asked, work: Workload, folder: Path) -> None:
    """Says what each setting took, and which was the fastest: first the threads, then the micro-batches, then how it writes."""
    found: dict[Setting, float] = {}
    until = time.perf_counter() + TRIALS_S

    def fastest_of(*settings: Setting) -> Setting:
        for setting in settings:
            if setting not in found and time.perf_counter() < until:
                found[setting] = seconds_of(work, folder, setting)
        return min(found, key=lambda setting: found[setting])

    first, *more = PARTS[parts_of(work)]
    best = fastest_of(*(Setting(threads, first) for threads in ((2,) if work.apart else (2, 1))))
    best = fastest_of(*(replace(best, parts=parts) for parts in more))
    if work.kind == "grpo" and work.precision == "fp32":  # in bf16 it leaves the weights themselves in bf16
        best = fastest_of(replace(best, paged=True))
    asked.ready({"tried": {str(setting): seconds for setting, seconds in found.items()}, "best": best})


def parts_of(work: Workload) -> str:
    """Which row of PARTS a workload has."""
    if work.kind == "sft":
        return "packed" if work.packed else "padded"
    return "large" if work.apart else work.kind


def seconds_of(work: Workload, folder: Path, setting: Setting) -> float:
    """Of the fastest step, for supervised texts per 1,000 trained tokens. Steps are made until three or TRIAL_S seconds are over."""
    taken: list[float] = []
    until = time.perf_counter() + 1e9

    def reply(said: dict[str, Any]) -> None:
        nonlocal until
        if "first" in said:
            until = time.perf_counter() + TRIAL_S
            return
        taken.append(said["seconds"] / (said["tokens"] / 1000 if work.kind == "sft" else 1))
        if time.perf_counter() > until:
            raise Ended

    with suppress(Ended):
        train(build(work, folder, setting, 3), work, reply)
    gc.collect()  # a trainer and its callbacks hold each other
    return min(taken)


def train(trainer: Any, work: Workload, reply: Callable[[dict[str, Any]], None]) -> None:
    """Runs the trainer; `reply` gets what was built, then each step, and returns when the next may begin."""
    from transformers import TrainerCallback

    clock = clocked(trainer)

    class Gate(TrainerCallback):
        began = 0.0

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            reply({"start_mb": memory_mb(), "first": first_ids(work, trainer)})
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            settle()
            seconds = time.perf_counter() - self.began
            reply({"seconds": seconds, **clock.taken(seconds)})
            self.began = time.perf_counter()

    trainer.add_callback(Gate())
    trainer.train()


class clocked:
    """Times the trainer's own methods, and keeps what it learned, from the outside."""

    def __init__(self, trainer: Any) -> None:
        self.trainer, self.seconds, self.losses, self.tokens = trainer, {"sample": 0.0, "reward": 0.0}, [], 0
        step, collate = trainer.training_step, trainer.data_collator
        self.online = "_generate" in dir(trainer)
        if self.online:
            trainer._generate = self._timed("sample", trainer._generate)
            trainer._calculate_rewards = self._timed("reward", trainer._calculate_rewards)

        def training_step(*given: Any, **more: Any) -> Any:
            loss = step(*given, **more)
            self.losses.append(float(loss))
            return loss

        def data_collator(rows: Any) -> Any:
            batch = collate(rows)
            if "labels" in batch:
                self.tokens += int((batch["labels"][:, 1:] != -100).sum())
            return batch

        trainer.training_step = training_step
        if not self.online:
            trainer.data_collator = data_collator

    def taken(self, seconds: float) -> dict[str, Any]:
        """What has been counted since the last call."""
        said: dict[str, Any] = {"tokens": self.tokens, "learned": sum(self.losses)}
        if self.online:
            metrics = self.trainer._metrics["train"]
            said |= {**self.seconds, "train": seconds - sum(self.seconds.values()), "learned": metrics["reward"][-1]}
            said["tokens"] = metrics["completions/mean_length"][-1] * self.trainer.args.generation_batch_size
        self.seconds, self.losses, self.tokens = {"sample": 0.0, "reward": 0.0}, [], 0
        return said

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **more: Any) -> Any:
            began = time.perf_counter()
            result = function(*given, **more)
            self.seconds[name] += time.perf_counter() - began
            return result

        return timed


PLAIN = {
    "gradient_checkpointing": False, "report_to": "none", "disable_tqdm": True, "logging_strategy": "no",
    "save_strategy": "no", "dataloader_pin_memory": False, "lr_scheduler_type": "constant", "adam_beta2": 0.95, "max_grad_norm": 1.0,
    "optim": "adamw_torch_fused",
}  # fmt: skip


def build(work: Workload, folder: Path, setting: Setting, steps: int, seed: int = 0) -> Any:
    """The trainer of a workload, on the weights and rows in `folder`."""
    os.environ |= {"TRL_EXPERIMENTAL_SILENCE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}
    import torch
    import trl
    from datasets import Dataset, disable_progress_bars
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    disable_progress_bars()
    torch.set_num_threads(setting.threads)
    name = model_folder(work, folder)
    tokenizer = AutoTokenizer.from_pretrained(name)
    kind = AutoModelForSequenceClassification if work.kind == "reward" else AutoModelForCausalLM
    model = kind.from_pretrained(name, dtype=torch.float32)
    rows = Dataset.from_list(list(rows_for(work, read_rows(folder)[: work.examples * steps], tokenizer)))
    trainer = {"grpo": "GRPO", "dpo": "DPO", "reward": "Reward", "sft": "SFT"}[work.kind]
    plain = {
        **PLAIN,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": work.precision == "bf16",
        "learning_rate": work.lr,
        "max_steps": steps,
        "seed": seed,
    }
    config = getattr(trl, f"{trainer}Config")(str(folder / "trl"), **plain, **settings_of(work, setting, len(rows) // steps))
    more = {"reward_funcs": exact if work.model is None else even_share} if work.kind == "grpo" else {}
    return getattr(trl, f"{trainer}Trainer")(model, args=config, train_dataset=rows, processing_class=tokenizer, **more)


def settings_of(work: Workload, setting: Setting, rows_in_a_step: int) -> dict[str, Any]:
    """What differs between the trainers."""
    if work.kind == "sft" and work.packed:
        cut = {"per_device_train_batch_size": PACKS // setting.parts, "gradient_accumulation_steps": setting.parts}
        return {"packing": True, "max_length": PACK, "train_sampling_strategy": "sequential", **cut}
    size = rows_in_a_step * (work.num_responses if work.kind == "grpo" else 1)
    said: dict[str, Any] = {"per_device_train_batch_size": size // setting.parts, "gradient_accumulation_steps": setting.parts}
    if work.kind != "grpo":
        said["train_sampling_strategy"] = "sequential"
    match work.kind:
        case "grpo":
            length = {"max_completion_length": work.response, "num_generations": work.num_responses, "shuffle_dataset": False}
            loss = {"loss_type": "dapo", "scale_rewards": "none", "beta": 0.0, "temperature": 1.0, "top_k": 0}
            said |= {**length, **loss, "use_transformers_continuous_batching": setting.paged}
            said |= {"transformers_continuous_batching_config": cache_for(work)} if setting.paged else {}
        case "dpo":
            said |= {"precompute_ref_log_probs": True, "max_length": None, "beta": 0.1}
        case "sft":
            said |= {"max_length": 512}
    return said


def cache_for(work: Workload) -> dict[str, int]:
    """As many pages as the answers of a step fill: by itself it takes half of the memory, and its speed falls with the pages it has."""
    pages = -(-(work.prompt + work.response) // PAGE) + 1
    return {"page_size": PAGE, "num_blocks": work.examples * work.num_responses * pages, "max_batch_tokens": 1024}


def rows_for(work: Workload, rows: list[Row], tokenizer: Any) -> Iterator[dict[str, Any]]:
    """The rows in TRL's columns. A ranking becomes all of its pairs."""
    for row in rows:
        match work.kind:
            case "grpo" if work.model is None:
                asked = [{"role": "user", "content": row["prompt"]}]
                yield {**row, "prompt": tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)}
            case "grpo":
                yield row
            case "dpo":
                better, worse = (f" {answer}" for answer in row["answers"])
                yield {"prompt": row["prompt"], "chosen": better, "rejected": worse}
            case "reward":
                whole = [[*tokenizer(f"{row['prompt']} {answer}")["input_ids"], END] for answer in row["answers"]]
                yield from ({"chosen_ids": a, "rejected_ids": b} for i, a in enumerate(whole) for b in whole[i + 1 :])
            case "sft":
                yield {"input_ids": [END, *tokenizer(row["text"])["input_ids"], END]}


def exact(prompts: list[Any], completions: list[str], answer: list[str], **columns: Any) -> list[float]:
    """Our reward of the same name, completion by completion."""
    from ikusei.rewards.exact import exact as score
    from ikusei.types import Prompt

    return [score(Prompt("", (), ""), text, answer=right) for text, right in zip(completions, answer, strict=True)]


def first_ids(work: Workload, trainer: Any) -> list[Any]:
    """The token ids of the first rows as the trainer has them; of a ranking each answer once. Packed texts have no rows any more."""
    rows = [trainer.train_dataset[i] for i in range(min(4, work.examples))]
    match work.kind:
        case "grpo":
            return [trainer.processing_class(row["prompt"])["input_ids"] for row in rows]
        case "dpo":
            return [row["prompt_ids"] + row[side] for row in rows for side in ("chosen_ids", "rejected_ids")]
        case "reward":
            pairs = [trainer.train_dataset[i] for i in range(work.num_responses - 1)]
            return [pairs[0]["chosen_ids"], *(pair["rejected_ids"] for pair in pairs)]
        case _:
            return [] if work.packed else [row["input_ids"] for row in rows]
