"""DPO in one file: a model answers sums, its right answers are put beside its wrong ones, and it learns to tell them apart by writing them.

Direct Preference Optimization (arXiv:2305.18290) needs no reward model: against a frozen copy of itself, the policy is one already.

    d(y)   = log pi(y) - log ref(y)               summed over the answer's tokens, its end among them
    margin = BETA (d(chosen) - d(rejected))       what pi, read as a reward model, finds the chosen answer better by
    L      = -log sigmoid(margin) - NLL log pi(chosen) / |chosen|,  mean over the step's pairs

The first term is content when both answers become less likely, as long as the rejected one falls faster; the second, from DPO + NLL
(arXiv:2404.19733), holds the chosen one up. Both answers of a pair are the model's own, so the data lies where the model is.

Left out: labels that may be wrong, rankings, and laying a pair's prompt out once. The library has these; a test proves that its gradient
is this file's. Run `python tour/dpo.py [model folder]`: a minute on one CPU thread. Without a folder it raises the seedling.
"""

from __future__ import annotations

import sys
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

QUESTIONS, ANSWERS, EPOCHS, PAIRS, LR, BETA, NLL, MAX_TOKENS = 512, 8, 3, 32, 1e-4, 0.1, 0.2, 64


class Attempt(NamedTuple):
    prompt: list[int]
    answer: list[int]  # the tokens that the model wrote, the end among them
    right: bool


def sums(chance: Random, count: int, test: bool) -> list[tuple[str, str]]:
    """Questions and right answers. By the hash of the question one in sixteen is held out: the seedling never saw it either."""
    found: list[tuple[str, str]] = []
    while len(found) < count:
        a, b = chance.randint(100, 999), chance.randint(100, 999)
        if (blake2b(f"{a}+{b}=".encode(), digest_size=8, person=b"held-out").digest()[0] < 16) == test:
            found.append((f"{a}+{b}=", str(a + b)))
    return found


def attempts(model: Any, tokenizer: Any, exam: list[tuple[str, str]]) -> list[Attempt]:
    """One sampled answer to each question, and whether what follows its thought is right."""
    chats = [[{"role": "user", "content": question}] for question, _ in exam]
    prompts = tokenizer.apply_chat_template(chats, add_generation_prompt=True, return_dict=False)
    asked = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
    rows = model.generate(**asked, do_sample=True, top_k=0, max_new_tokens=MAX_TOKENS)[:, asked["input_ids"].shape[1] :].tolist()
    end = tokenizer.eos_token_id
    answers = [row[: row.index(end) + 1] if end in row else row for row in rows]  # what follows the end is padding
    texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
    judged = [text.rpartition("</think>")[2].strip() == right for text, (_, right) in zip(texts, exam, strict=True)]
    return [Attempt(*each) for each in zip(prompts, answers, judged, strict=True)]


def pairs_of(tries: list[list[Attempt]], chance: Random) -> list[tuple[Attempt, Attempt]]:
    """(chosen, rejected) from each question that was answered now right, now wrong. `tries` is [answers, questions]."""
    pairs = []
    for siblings in zip(*tries, strict=True):
        right, wrong = [each for each in siblings if each.right], [each for each in siblings if not each.right]
        if right and wrong:  # of the others there is nothing to choose
            pairs.append((chance.choice(right), chance.choice(wrong)))
    return pairs


def batch(pairs: list[tuple[Attempt, Attempt]]) -> dict[str, Tensor]:
    """A row [prompt | answer | padding] for each answer: first all that were chosen, then all that were rejected."""
    rows = [chosen for chosen, _ in pairs] + [rejected for _, rejected in pairs]
    tokens = [torch.tensor(row.prompt + row.answer) for row in rows]
    written = [torch.tensor([0.0] * len(row.prompt) + [1.0] * len(row.answer)) for row in rows]
    return {"tokens": pad_sequence(tokens, batch_first=True), "written": pad_sequence(written, batch_first=True)}


def log_prob(model: PreTrainedModel, tokens: Tensor, written: Tensor) -> Tensor:
    """[rows, T] -> [rows], of whole answers. Position t predicts token t + 1; it never looks right, so padding there needs no mask."""
    logp = model(input_ids=tokens[:, :-1]).logits.log_softmax(-1).gather(2, tokens[:, 1:, None]).squeeze(2)
    return (logp * written[:, 1:]).sum(1)


def loss(model: PreTrainedModel, tokens: Tensor, written: Tensor, ref_logp: Tensor) -> Tensor:
    """tokens and written [rows, T], ref_logp [rows]; the second half of the rows is what the first was preferred to."""
    logp = log_prob(model, tokens, written)
    chosen, rejected = (BETA * (logp - ref_logp)).chunk(2)
    nll, _ = (-logp / written.sum(1)).chunk(2)
    return (-F.logsigmoid(chosen - rejected) + NLL * nll).mean()


def main(folder: str | Path = Path(__file__).parents[1] / "seedling") -> None:
    torch.set_num_threads(1)  # faster than several for so small a model
    torch.manual_seed(0)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, betas=(0.9, 0.95), weight_decay=0.0)
    chance, exam = Random(0), sums(Random(1), 512, test=True)
    print(f"held-out sums answered right: {sum(each.right for each in attempts(model, tokenizer, exam)) / len(exam):.1%}")
    shown = sums(chance, QUESTIONS, test=False)
    pairs = pairs_of([attempts(model, tokenizer, shown) for _ in range(ANSWERS)], chance)
    steps = [batch(pairs[i : i + PAIRS]) for i in range(0, len(pairs), PAIRS)]
    for rows in steps:  # ref is the model as it is now: asked once, before it moves, it need not be kept
        rows["ref_logp"] = log_prob(model, **rows).detach()
    print(f"{len(pairs)} pairs from {len(shown)} questions", flush=True)
    for epoch in range(1, EPOCHS + 1):
        for number, rows in enumerate(steps, 1):
            value = loss(model, **rows)
            value.backward()
            optimizer.step()
            optimizer.zero_grad()
            print(f"epoch {epoch}   step {number:2}   loss {value.item():.3f}", flush=True)
    print(f"held-out sums answered right: {sum(each.right for each in attempts(model, tokenizer, exam)) / len(exam):.1%}")


if __name__ == "__main__":
    main(*sys.argv[1:])
