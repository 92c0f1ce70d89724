"""Supervised fine-tuning in one file: a model that guesses at sums is shown worked ones, and learns to work them.

Instruction tuning (FLAN, arXiv:2109.01652; the first step of InstructGPT, arXiv:2203.02155) is next-token prediction on answers that
somebody wrote. The prompt is read and not learned; the token that ends the answer is learned, or the model would never stop.

    L = -sum_t log pi(a_t | prompt, a_<t) / number of answer tokens in the step

The mean is over the step's tokens, not over its rows, so that a token counts the same in a long answer as in a short one.
Left out: packing rows together, and several turns. The library has packing; a test proves that its gradient is this file's.
Run `python tour/sft.py [model folder]`: half a minute on one CPU thread. Without a folder it teaches the seedling.
"""

from __future__ import annotations

import sys
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

STEPS, ROWS, LR, MAX_TOKENS = 60, 64, 3e-4, 96
IGNORED = -100  # what cross_entropy does not count


def sums(chance: Random, count: int, test: bool) -> list[tuple[int, int]]:
    """Pairs of numbers. By the hash of the question one in sixteen is held out: the seedling never saw it either."""
    found: list[tuple[int, int]] = []
    while len(found) < count:
        a, b = chance.randint(100, 999), chance.randint(100, 999)
        if (blake2b(f"{a}+{b}=".encode(), digest_size=8, person=b"held-out").digest()[0] < 16) == test:
            found.append((a, b))
    return found


def worked(a: int, b: int) -> str:
    """123+459 -> <think>3+9=12 2+5+1=8 1+4=5</think>582: column by column, the units first, +1 where one is carried."""
    steps, carry = [], 0
    for x, y in zip(reversed(str(a)), reversed(str(b)), strict=True):
        total = int(x) + int(y) + carry
        steps.append(f"{x}+{y}{'+1' if carry else ''}={total}")
        carry = total // 10
    return f"<think>{' '.join(steps)}</think>{a + b}"


def asked(tokenizer: Any, pairs: list[tuple[int, int]], **how: Any) -> Any:
    """The questions as the chat template puts them, up to where the answer begins."""
    chats = [[{"role": "user", "content": f"{a}+{b}="}] for a, b in pairs]
    return tokenizer.apply_chat_template(chats, add_generation_prompt=True, **how)


def batch(prompts: list[list[int]], answers: list[list[int]]) -> dict[str, Tensor]:
    """A row [prompt | answer | padding] for each answer; `labels` is the same, with everything but the answer ignored."""
    rows = list(zip(prompts, answers, strict=True))
    tokens = [torch.tensor(prompt + answer) for prompt, answer in rows]
    labels = [torch.tensor([IGNORED] * len(prompt) + answer) for prompt, answer in rows]
    return {"tokens": pad_sequence(tokens, batch_first=True), "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED)}


def loss(model: PreTrainedModel, tokens: Tensor, labels: Tensor) -> Tensor:
    """[rows, T] each. Position t predicts token t + 1; it never looks right, so padding there needs no mask."""
    logits = model(input_ids=tokens[:, :-1]).logits
    return F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)


def accuracy(model: Any, tokenizer: Any, exam: list[tuple[int, int]]) -> float:
    """The share of sums that one sampled answer gets right, after its thought."""
    prompts = asked(tokenizer, exam, return_dict=True, return_tensors="pt", padding=True, tokenizer_kwargs={"padding_side": "left"})
    written = model.generate(**prompts, do_sample=True, top_k=0, max_new_tokens=MAX_TOKENS)[:, prompts["input_ids"].shape[1] :]
    texts = tokenizer.batch_decode(written, skip_special_tokens=True)
    return sum(text.rpartition("</think>")[2].strip() == str(a + b) for text, (a, b) in zip(texts, exam, strict=True)) / len(exam)


def main(folder: str | Path = Path(__file__).parents[1] / "seedling") -> None:
    torch.set_num_threads(1)  # faster than several for so small a model
    torch.manual_seed(0)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, betas=(0.9, 0.95), weight_decay=0.0)
    chance, exam = Random(0), sums(Random(1), 512, test=True)
    print(f"held-out sums answered right: {accuracy(model, tokenizer, exam):.1%}")
    for step in range(1, STEPS + 1):
        shown = sums(chance, ROWS, test=False)
        texts = tokenizer([worked(a, b) for a, b in shown], add_special_tokens=False).input_ids
        rows = batch(asked(tokenizer, shown, return_dict=False), [[*text, tokenizer.eos_token_id] for text in texts])
        value = loss(model, **rows)
        value.backward()
        for group in optimizer.param_groups:
            group["lr"] = LR * (1 - (step - 1) / STEPS)  # falls to nothing, so that the last steps settle
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step:2}   loss {value.item():.4f} nats a token", flush=True)
    print(f"held-out sums answered right: {accuracy(model, tokenizer, exam):.1%}")


if __name__ == "__main__":
    main(*sys.argv[1:])
