"""PPO in one file: a model that answers sums lazily is rewarded for right answers, and a critic tells which of its tokens deserve it.

Proximal Policy Optimization (arXiv:1707.06347) as it is used on text (arXiv:1909.08593, 2203.02155). The score comes with the last token
alone. Before each token a critic V guesses what is still to be earned; where the guess rises or falls, there it was earned or lost.

    r_t = -KL (log pi_old(t) - log ref(t)),  + the score at the last token          ref is the model as it was before the first step
    A_t = d_t + LAMBDA d_t+1 + LAMBDA^2 d_t+2 + ...,   d_t = r_t + V_t+1 - V_t      GAE (arXiv:1506.02438); V after the last token is 0
    L   = -mean min(w A, clip(w, 1 - CLIP, 1 + CLIP) A) + CRITIC mean max((V - R)^2, (clip(V, V_old - CLIP, V_old + CLIP) - R)^2) / 2
          with w = pi / pi_old and R = A + V_old; in the first term A is whitened; means and whitening are over all tokens of the step

Left out: a critic with layers of its own, a KL coefficient that adapts, a mix of pretraining. The library has these; a test proves that
its gradient is this file's. Run `python tour/ppo.py [model folder]`: a minute on one CPU thread. Without a folder it raises the seedling.
"""

from __future__ import annotations

import copy
import sys
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer

STEPS, QUESTIONS, UPDATES, LR, MAX_TOKENS = 20, 128, 2, 1e-4, 64
KL, LAMBDA, CLIP, CRITIC = 0.02, 0.95, 0.2, 0.1


def sums(chance: Random, count: int, test: bool) -> list[tuple[str, str]]:
    """Questions and right answers. By the hash of the question one in sixteen is held out: the seedling never saw it either."""
    found: list[tuple[str, str]] = []
    while len(found) < count:
        a, b = chance.randint(100, 999), chance.randint(100, 999)
        if (blake2b(f"{a}+{b}=".encode(), digest_size=8, person=b"held-out").digest()[0] < 16) == test:
            found.append((f"{a}+{b}=", str(a + b)))
    return found


def attempt(model: Any, tokenizer: Any, exam: list[tuple[str, str]]) -> tuple[list[list[int]], list[list[int]], Tensor]:
    """Prompts, a sampled answer to each, and its score: 1 if right after the thought, -1 if it never ends, else 0."""
    chats = [[{"role": "user", "content": question}] for question, _ in exam]
    prompts = tokenizer.apply_chat_template(chats, add_generation_prompt=True, return_dict=False)
    asked = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
    rows = model.generate(**asked, do_sample=True, top_k=0, max_new_tokens=MAX_TOKENS)[:, asked["input_ids"].shape[1] :].tolist()
    end = tokenizer.eos_token_id
    answers = [row[: row.index(end) + 1] if end in row else row for row in rows]  # what follows the end is padding
    texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
    right = [text.rpartition("</think>")[2].strip() == answer for text, (_, answer) in zip(texts, exam, strict=True)]
    return prompts, answers, torch.tensor([float(good) if end in row else -1.0 for good, row in zip(right, rows, strict=True)])


def batch(prompts: list[list[int]], answers: list[list[int]]) -> dict[str, Tensor]:
    """tokens [rows, T + 1], each row [prompt | answer | padding]; written [rows, T], 1 where token t + 1 is the model's own."""
    tokens = [torch.tensor(prompt + answer) for prompt, answer in zip(prompts, answers, strict=True)]
    written = [torch.tensor([0.0] * (len(prompt) - 1) + [1.0] * len(answer)) for prompt, answer in zip(prompts, answers, strict=True)]
    return {"tokens": pad_sequence(tokens, batch_first=True), "written": pad_sequence(written, batch_first=True)}


def read(model: Any, critic: nn.Linear, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """[rows, T] each: the log-probability of token t + 1, and the critic's guess before it. Both look at the same hidden state."""
    hidden = model.base_model(input_ids=tokens[:, :-1]).last_hidden_state
    return model.lm_head(hidden).log_softmax(-1).gather(2, tokens[:, 1:, None]).squeeze(2), critic(hidden).squeeze(2)


def credit(written: Tensor, old_logp: Tensor, ref_logp: Tensor, old_value: Tensor, score: Tensor) -> dict[str, Tensor]:
    """[rows, T] each, score [rows]. From the last token back to the first, each learns how much better it went on than was guessed."""
    last = written * (written.cumsum(1) == written.sum(1, keepdim=True))
    reward = score[:, None] * last - KL * (old_logp - ref_logp)
    advantage, ahead, next_value = torch.zeros_like(reward), torch.zeros_like(score), torch.zeros_like(score)
    for t in reversed(range(written.shape[1])):
        ahead = (reward[:, t] + next_value - old_value[:, t] + LAMBDA * ahead) * written[:, t]
        advantage[:, t], next_value = ahead, old_value[:, t] * written[:, t]
    told = advantage[written.bool()]
    white = (advantage - told.mean()) / (told.var(correction=0) + 1e-8).sqrt()
    return {"advantage": white, "target": advantage + old_value, "old_logp": old_logp, "old_value": old_value}


def loss(
    model: Any, critic: nn.Linear, tokens: Tensor, written: Tensor, advantage: Tensor, target: Tensor, old_logp: Tensor, old_value: Tensor
) -> Tensor:
    """What `batch` and `credit` say. Nothing is gained by a ratio or a guess that goes further than CLIP from where it was."""
    logp, value = read(model, critic, tokens)
    ratio, held = (logp - old_logp).exp(), old_value + (value - old_value).clamp(-CLIP, CLIP)
    objective = torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage)
    error = torch.maximum((value - target).square(), (held - target).square()) / 2
    return ((CRITIC * error - objective) * written).sum() / written.sum()


def main(folder: str | Path = Path(__file__).parents[1] / "seedling") -> None:
    torch.set_num_threads(1)  # faster than several for so small a model
    torch.manual_seed(0)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    reference, critic = copy.deepcopy(model), nn.Linear(model.config.hidden_size, 1)
    nn.init.zeros_(critic.weight)  # it begins by guessing 0 everywhere, and not by misleading
    nn.init.zeros_(critic.bias)
    optimizer = torch.optim.AdamW([*model.parameters(), *critic.parameters()], lr=LR, betas=(0.9, 0.95), weight_decay=0.0)
    chance, exam = Random(0), sums(Random(1), 512, test=True)
    print(f"held-out sums answered right: {(attempt(model, tokenizer, exam)[2] == 1).float().mean():.1%}")
    for step in range(1, STEPS + 1):
        prompts, answers, score = attempt(model, tokenizer, sums(chance, QUESTIONS, test=False))
        rows = batch(prompts, answers)
        with torch.no_grad():
            old_logp, old_value = read(model, critic, rows["tokens"])
            ref_logp, _ = read(reference, critic, rows["tokens"])
        rows |= credit(rows["written"], old_logp, ref_logp, old_value, score)
        for _ in range(UPDATES):
            loss(model, critic, **rows).backward()
            optimizer.step()
            optimizer.zero_grad()
        kl = ((old_logp - ref_logp) * rows["written"]).sum() / QUESTIONS
        print(f"step {step:2}   score {score.mean():.2f}   KL from the reference {kl:.2f} nats an answer", flush=True)
    print(f"held-out sums answered right: {(attempt(model, tokenizer, exam)[2] == 1).float().mean():.1%}")


if __name__ == "__main__":
    main(*sys.argv[1:])
