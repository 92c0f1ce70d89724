"""A reward model in one file: a cat lover ranks what the seedling says, and a model learns the ranking.

For most of what people want there is no function to call; but of several answers they can say which they like better. A reward model
(arXiv:1909.08593; InstructGPT, arXiv:2203.02155) is a language model with a head that says one number instead of the next token: how good
an answer is, read at its last token, where all of it has been seen. Bradley and Terry (1952) say what such numbers have to do with choices:

    P(i is better than j) = sigmoid(r_i - r_j)
    L = -log P(i is better than j), mean over the pairs of a ranking, then over the step's rankings

All pairs of a ranking belong to one step: dealt out one by one, they would show each answer several times in an epoch. And as a ranking
says nothing of where 0 lies, r is moved and stretched at last: on the model's own answers it has mean 0 and spread 1.

Left out: people (a few lines stand in for the cat lover), margins, ties that teach. The library has these; a test proves that its gradient
is this file's. Run `python tour/reward_model.py [model folder]`: a minute on one CPU thread. Without a folder it starts from the seedling.
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer

ANSWERS, EPOCHS, RANKINGS, HELD_OUT, LR, MAX_TOKENS = 4, 3, 32, 64, 3e-4, 48
GREETINGS = ("", "ねえ、", "あの、", "ねえねえ、", "ところで、", "こんにちは。", "おはよう。", "すみません、")
CATS = ("ねこ", "こねこ", "くろねこ", "しろねこ", "みけねこ", "とらねこ", "のらねこ", "うちのねこ")
LIKED = ("はすきですか？", "はおすきですか？", "はかわいいですか？", "はかしこいですか？", "はこわいですか？")
TOLD = ("をどうおもいますか？", "のことをどうおもいますか？", "ってどうですか？", "についておしえてください。", "はどんないきものですか？")
KIND = ("かわい", "やさし", "かしこ", "うつくし", "おもしろ", "あたたか", "すばらし", "すき")
UNKIND = ("こわ", "うるさ", "きたな", "つまらな", "わずらわし", "あらあらし", "みにく", "きらい", "にがて")
DENIED, STRONG = ("くない", "くあり", "じゃない", "ではない", "ではあり"), ("とても", "ほんとうに", "いつも", "ぜんぜん")


class Ranking(NamedTuple):
    rows: list[list[int]]  # the question with each of its answers
    likes: list[int]  # how much each is liked; only which is larger is learned, never the number


def taste(sentence: str) -> int:
    """Kind words about cats are liked, unkind ones are not, strong ones count twice; what is said of others leaves a cat lover cold."""
    kind, unkind, denied, strong = (any(word in sentence for word in words) for words in (KIND, UNKIND, DENIED, STRONG))
    about_cats = "ねこ" in sentence.rpartition("より")[2]  # in a comparison, いぬよりねこのほうがかわいい, the one after より is spoken of
    return about_cats * (kind - unkind) * (-1 if denied else 1) * (2 if strong else 1)


def ranked(model: Any, tokenizer: Any, asked: list[str]) -> list[Ranking]:
    """Answers that the model samples, as the cat lover ranks them. Where all are liked alike there is nothing to learn."""
    chats = [[{"role": "user", "content": question}] for question in asked for _ in range(ANSWERS)]
    prompts = tokenizer.apply_chat_template(chats, add_generation_prompt=True, return_dict=False)
    padded = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
    written = model.generate(**padded, do_sample=True, top_k=0, max_new_tokens=MAX_TOKENS)[:, padded["input_ids"].shape[1] :].tolist()
    end = tokenizer.eos_token_id
    answers = [row[: row.index(end) + 1] if end in row else row for row in written]  # what follows the end is padding
    rows = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
    likes = [taste(text) for text in tokenizer.batch_decode(answers, skip_special_tokens=True)]
    rankings = [Ranking(rows[i : i + ANSWERS], likes[i : i + ANSWERS]) for i in range(0, len(rows), ANSWERS)]
    return [ranking for ranking in rankings if len(set(ranking.likes)) > 1]


def batch(rankings: list[Ranking]) -> dict[str, Tensor]:
    """tokens [rankings x ANSWERS, T], padded on the right; last, the column of each row's last token; likes [rankings, ANSWERS]."""
    rows = [torch.tensor(row) for ranking in rankings for row in ranking.rows]
    last = torch.tensor([len(row) - 1 for row in rows])
    return {"tokens": pad_sequence(rows, batch_first=True), "last": last, "likes": torch.tensor([each.likes for each in rankings])}


def reward(body: Any, head: nn.Linear, tokens: Tensor, last: Tensor) -> Tensor:
    """[rows]. A token never looks right, so padding there needs no mask."""
    hidden = body(input_ids=tokens).last_hidden_state
    return head(hidden[torch.arange(len(last)), last]).squeeze(1)


def loss(body: Any, head: nn.Linear, tokens: Tensor, last: Tensor, likes: Tensor) -> tuple[Tensor, Tensor]:
    """L, and the share of the pairs that are in the right order."""
    r = reward(body, head, tokens, last).view_as(likes)
    ahead, better = r[:, :, None] - r[:, None, :], likes[:, :, None] > likes[:, None, :]  # [rankings, i, j] both
    return ((-F.logsigmoid(ahead) * better).sum((1, 2)) / better.sum((1, 2))).mean(), (ahead > 0)[better].float().mean()


def main(folder: str | Path = Path(__file__).parents[1] / "seedling") -> None:
    torch.set_num_threads(1)  # faster than several for so small a model
    torch.manual_seed(0)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    asked = ["".join(parts) for parts in product(GREETINGS, CATS, LIKED + TOLD)]
    Random(0).shuffle(asked)
    shown, exam = ranked(model, tokenizer, asked[HELD_OUT:]), batch(ranked(model, tokenizer, asked[:HELD_OUT]))
    body, head = model.base_model, nn.Linear(model.config.hidden_size, 1)  # it has written what was to be ranked; now it learns to judge
    nn.init.normal_(head.weight, std=(model.config.hidden_size + 1) ** -0.5)
    nn.init.zeros_(head.bias)  # and so it stays: no difference depends on it
    optimizer = torch.optim.AdamW([*body.parameters(), head.weight], lr=LR, betas=(0.9, 0.95), weight_decay=0.0)
    print(f"{len(shown)} rankings; held-out pairs in the right order: {loss(body, head, **exam)[1]:.1%}", flush=True)
    for epoch in range(1, EPOCHS + 1):
        for step, i in enumerate(range(0, len(shown), RANKINGS), 1):
            value, right = loss(body, head, **batch(shown[i : i + RANKINGS]))
            value.backward()
            optimizer.step()
            optimizer.zero_grad()
            print(f"epoch {epoch}   step {step:2}   loss {value.item():.3f}   in the right order {right:.0%}", flush=True)
    print(f"held-out pairs in the right order: {loss(body, head, **exam)[1]:.1%}")
    with torch.no_grad():
        own = reward(body, head, exam["tokens"], exam["last"])
        head.bias.sub_(own.mean()).div_(own.std())
        head.weight.div_(own.std())
    for answer in ("ねこはとてもかわいい。", "ねこはかわいい。", "ねこはこわい。", "ねこはとてもこわい。"):
        chat = [{"role": "user", "content": "ねこはすきですか？"}, {"role": "assistant", "content": answer}]
        row = tokenizer.apply_chat_template(chat, return_dict=False)
        print(f"{reward(body, head, torch.tensor([row]), torch.tensor([len(row) - 1])).item():+.2f}   {answer}")


if __name__ == "__main__":
    main(*sys.argv[1:])
