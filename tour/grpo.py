"""GRPO in one file: a model that answers sums lazily is rewarded for right answers alone, and learns to think before it answers.

Group Relative Policy Optimization (DeepSeekMath, arXiv:2402.03300) samples several answers o_i to the same question and asks of each only
how much better it is than its siblings. There is no critic, no reference model, and any Python function can be the reward.

    A_i = r_i - mean(r)                 over the siblings; not divided by std(r), as in Dr. GRPO (arXiv:2503.20783)
    w_t = pi(o_t) / pi_old(o_t)         pi_old wrote the answers; w is 1 in a step's first update, where L is REINFORCE
    L   = -sum_t min(w_t A_i, clip(w_t, 1 - CLIP, 1 + CLIP) A_i) / number of tokens in the step, as in DAPO (arXiv:2503.14476)

Left out: a KL term, and all that makes it fast and safe. The library has these; a test proves that its gradient is this file's.
Run `python tour/grpo.py [model folder]`: a minute and a half on one CPU thread. Without a folder it raises the seedling.
"""

from __future__ import annotations

import sys
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

STEPS, QUESTIONS, ANSWERS, UPDATES, LR, CLIP, MAX_TOKENS = 30, 16, 8, 2, 1e-4, 0.2, 96


class Sample(NamedTuple):
    prompt: list[int]
    answer: list[int]  # the tokens that the model wrote
    logp: list[float]  # the log-probability of each of them, when it wrote it


def sums(chance: Random, count: int, test: bool) -> list[tuple[str, str]]:
    """Questions and right answers. By the hash of the question one in sixteen is held out: the seedling never saw it either."""
    found: list[tuple[str, str]] = []
    while len(found) < count:
        a, b = chance.randint(100, 999), chance.randint(100, 999)
        if (blake2b(f"{a}+{b}=".encode(), digest_size=8, person=b"held-out").digest()[0] < 16) == test:
            found.append((f"{a}+{b}=", str(a + b)))
    return found


def reward(text: str, right: str) -> float:
    """1 where the right answer follows the thought, else 0. Nothing is paid for thinking."""
    return float(text.rpartition("</think>")[2].strip() == right)


def padded(rows: list[list[int]] | list[list[float]], side: str = "right") -> Tensor:
    """[rows, longest], with zeros on one side of the shorter ones."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_side=side)


@torch.no_grad()
def sample(model: PreTrainedModel, prompts: list[list[int]], end: int) -> list[Sample]:
    """One answer to each prompt, all of them token by token. Padding on the left lets every prompt end in the same column."""
    tokens, seen, cache = padded(prompts, "left"), padded([[1] * len(prompt) for prompt in prompts], "left"), None
    writing = samples = [Sample(prompt, [], []) for prompt in prompts]
    while writing and len(writing[0].answer) < MAX_TOKENS:
        position = (seen.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        out = model(input_ids=tokens, attention_mask=seen, position_ids=position, past_key_values=cache, use_cache=True)
        logp, cache = out.logits[:, -1].log_softmax(-1), out.past_key_values
        tokens = torch.multinomial(logp.exp(), num_samples=1)
        for each, token, its_logp in zip(writing, tokens.flatten().tolist(), logp.gather(1, tokens).flatten().tolist(), strict=True):
            each.answer.append(token)
            each.logp.append(its_logp)
        on = (tokens[:, 0] != end).nonzero()[:, 0]  # the rest have ended, and leave
        writing, tokens, seen = [writing[row] for row in on], tokens[on], torch.cat([seen, torch.ones_like(tokens)], dim=1)[on]
        cache.batch_select_indices(on)
    return samples


def batch(samples: list[Sample], rewards: Tensor) -> dict[str, Tensor]:
    """A row [prompt | answer | padding] for each sample. `rewards` is [questions, answers], and the samples come in that order."""
    return {
        "tokens": padded([s.prompt + s.answer for s in samples]),
        "old_logp": padded([[0.0] * len(s.prompt) + s.logp for s in samples]),
        "written": padded([[0.0] * len(s.prompt) + [1.0] * len(s.answer) for s in samples]),
        "advantage": (rewards - rewards.mean(dim=1, keepdim=True)).flatten()[:, None],
    }


def loss(model: PreTrainedModel, tokens: Tensor, old_logp: Tensor, written: Tensor, advantage: Tensor) -> Tensor:
    """[rows, T] each, advantage [rows, 1]. Position t predicts token t + 1; it never looks right, so padding there needs no mask."""
    logp = model(input_ids=tokens[:, :-1]).logits.log_softmax(-1).gather(2, tokens[:, 1:, None]).squeeze(2)
    ratio = (logp - old_logp[:, 1:]).exp()
    objective = torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage)
    return -(objective * written[:, 1:]).sum() / written.sum()


def attempt(model: PreTrainedModel, tokenizer: Any, exam: list[tuple[str, str]]) -> tuple[list[Sample], list[str], Tensor]:
    """An answer to each question, in tokens and as text, and what it earns."""
    chats = [[{"role": "user", "content": question}] for question, _ in exam]
    samples = sample(model, tokenizer.apply_chat_template(chats, add_generation_prompt=True, return_dict=False), tokenizer.eos_token_id)
    texts = tokenizer.batch_decode([s.answer for s in samples], skip_special_tokens=True)
    return samples, texts, torch.tensor([reward(text, right) for text, (_, right) in zip(texts, exam, strict=True)])


def main(folder: str | Path = Path(__file__).parents[1] / "seedling") -> None:
    torch.set_num_threads(1)  # faster than several for so small a model
    torch.manual_seed(0)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, betas=(0.9, 0.95), weight_decay=0.0)
    chance, exam = Random(0), sums(Random(1), 512, test=True)
    print(f"held-out sums answered right: {attempt(model, tokenizer, exam)[2].mean():.1%}")
    for step in range(1, STEPS + 1):
        samples, texts, rewards = attempt(model, tokenizer, [each for each in sums(chance, QUESTIONS, test=False) for _ in range(ANSWERS)])
        rows = batch(samples, rewards.view(QUESTIONS, ANSWERS))
        for _ in range(UPDATES):
            loss(model, **rows).backward()
            optimizer.step()
            optimizer.zero_grad()
        length, empty = rows["written"].sum() / len(texts), sum(text.startswith("<think></think>") for text in texts) / len(texts)
        print(f"step {step:2}   reward {rewards.mean():.2f}   length {length:4.1f} tokens   empty thoughts {empty:.0%}", flush=True)
    print(f"held-out sums answered right: {attempt(model, tokenizer, exam)[2].mean():.1%}")


if __name__ == "__main__":
    main(*sys.argv[1:])
