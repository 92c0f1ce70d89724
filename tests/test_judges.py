"""Reward models: the head and where it reads, what a judge says against numbers by hand, its scale, and what a new process makes of it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ikusei.backends.local import LocalPolicy, LocalSettings, export
from ikusei.forest import plant
from ikusei.guard.outcomes import RewardSpec
from ikusei.guard.workers import RewardWorkers
from ikusei.loops.reward_scale import mean_and_std
from ikusei.models.learned_reward import LearnedReward, RewardEnsemble
from ikusei.models.load import check_kind, load_model, load_reward_model, load_tokenizer
from ikusei.text.chat import continuation, render
from ikusei.types import Example, Group, Message, Response
from laws import worlds

QUESTION = "3+4="
TALK = (Message(role="user", content="1+1="), Message(role="assistant", content="2"), Message(role="user", content="2+2="))
TEXTS = ("7", " 8 or so", "no")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model, three reward models made from it, and one that reads whole words of another vocabulary."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("judges")
    policy = worlds.make_talker()
    export(policy.causal.model, policy.tokenizer, folder / "model")
    for seed, name in enumerate(("a", "b", "c")):
        write_judge(folder, name, policy.tokenizer, seed, bias=0.5 * seed)
    write_judge(folder, "words", other_tokenizer(), 5, bias=0.25)
    return folder


def write_judge(folder: Path, name: str, tokenizer: PreTrainedTokenizerBase, seed: int, bias: float) -> None:
    judge = load_reward_model(str(folder / "model"), seed)
    judge.config.pad_token_id = tokenizer.pad_token_id
    judge.config.reward_bias = bias
    export(judge, tokenizer, folder / name)


def other_tokenizer() -> PreTrainedTokenizerFast:
    """Characters in another order, with another template: the same text has other ids."""
    letters = ["<pad>", "<end>", "<unk>", *sorted({c for c in "0123456789+=-. abcdefghijklmnopqrstuvwxyz:\n"}, reverse=True)]
    raw = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate(letters)}, unk_token="<unk>"))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()  # pyright: ignore[reportAttributeAccessIssue]
    template = "{% for m in messages %}{{ m.role + ':' + m.content }}{% if m.role == 'assistant' %}<end>{% endif %}{% endfor %}"
    template += "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>", pad_token="<pad>", unk_token="<unk>", chat_template=template)


def asked(folder: Path, prompt: str | tuple[Message, ...] = QUESTION, texts: Sequence[str] = TEXTS) -> Group:
    tokenizer = load_tokenizer(str(folder / "model"))
    question = render(tokenizer, Example(prompt))
    return Group(question, tuple(continuation(tokenizer, question, text) for text in texts))


def judge(folder: Path, *names: str, **settings: object) -> RewardEnsemble:
    given = LearnedReward.read("learned", {"models": [str(folder / name) for name in names], **settings})
    return RewardEnsemble("learned", given, load_tokenizer(str(folder / "model")))


def plainly(folder: Path, name: str, tokens: Sequence[int]) -> float:
    """What transformers says of one row by itself, and the bias."""
    model = load_reward_model(str(folder / name))
    with torch.no_grad():
        return float(model(input_ids=torch.tensor([tokens])).logits) + model.config.reward_bias


def values(judge: RewardEnsemble, groups: Sequence[Group]) -> list[float]:
    parts = [response["learned"] for group in judge(groups) for response in group]
    assert all(part.status == "ok" and part.value is not None for part in parts)
    return [part.value for part in parts if part.value is not None]


def test_it_says_what_the_model_says_of_each_row_alone(world: Path) -> None:
    groups = [asked(world), asked(world, TALK, ("4",)), asked(world, "9-2=", ("a", "b" * 30))]
    rows = [[*group.prompt.tokens, *response.tokens] for group in groups for response in group.responses]
    assert values(judge(world, "b"), groups) == pytest.approx([plainly(world, "b", row) for row in rows], abs=1e-5)


def test_ensembles_by_hand(world: Path) -> None:
    group = asked(world)
    said = [values(judge(world, name), [group]) for name in ("a", "b", "c")]
    rows = list(zip(*said, strict=True))
    expected = {
        "mean": [fmean(row) for row in rows],
        "worst": [min(row) for row in rows],
        "uncertainty": [fmean(row) - 0.3 * pstdev(row) ** 2 for row in rows],
    }
    for combine, each in expected.items():
        assert values(judge(world, "a", "b", "c", combine=combine, uncertainty_coef=0.3), [group]) == pytest.approx(each, abs=1e-6)
    spreads = [response["learned/spread"].value for response in judge(world, "a", "b", "c")([group])[0]]
    assert spreads == pytest.approx([pstdev(row) for row in rows], abs=1e-6) and min(pstdev(row) for row in rows) > 0
    assert "learned/spread" not in judge(world, "a")([group])[0][0]


@pytest.mark.parametrize("prompt", [QUESTION, TALK], ids=["question", "conversation"])
def test_another_tokenizer_reads_prompt_and_answer_anew(prompt: str | tuple[Message, ...], world: Path) -> None:
    own, group = other_tokenizer(), asked(world, prompt)
    turns = [{**turn} for turn in prompt] if isinstance(prompt, tuple) else [{"role": "user", "content": prompt}]
    texts = [str(own.apply_chat_template([*turns, {"role": "assistant", "content": text}], tokenize=False)) for text in TEXTS]
    rows = [own.encode(text, add_special_tokens=False) for text in texts]
    assert rows[0][-1] == own.eos_token_id and rows[0] != [*group.prompt.tokens, *group.responses[0].tokens]
    assert values(judge(world, "words"), [group]) == pytest.approx([plainly(world, "words", row) for row in rows], abs=1e-5)


def test_a_cut_off_answer_has_no_end(world: Path) -> None:
    """Neither in the policy's tokens nor in those of another tokenizer."""
    group = asked(world, texts=("78",))
    whole = group.responses[0]
    cut = replace(group, responses=(replace(whole, tokens=whole.tokens[:-1], mask=whole.mask[:-1], stop="length"),))
    assert values(judge(world, "a"), [cut]) == pytest.approx([plainly(world, "a", [*group.prompt.tokens, *whole.tokens[:-1]])], abs=1e-5)
    row = other_tokenizer().encode(f"user:{QUESTION}assistant:78", add_special_tokens=False)
    assert values(judge(world, "words"), [cut]) == pytest.approx([plainly(world, "words", row)], abs=1e-5)
    assert values(judge(world, "words"), [cut]) != pytest.approx(values(judge(world, "words"), [group]), abs=1e-3)


def test_what_does_not_fit_is_an_error_of_its_own(world: Path) -> None:
    group = asked(world, texts=("7", "1" * worlds.CONTEXT, "8"))
    short, long, other = (response["learned"] for response in judge(world, "a", "b")([group])[0])
    assert (long.value, long.status) == (None, "error") and "context" in long.note
    assert [short.value, other.value] == values(judge(world, "a", "b"), [replace(group, responses=group.responses[::2])])
    assert judge(world, "a")([asked(world, texts=("1" * worlds.CONTEXT,))])[0][0]["learned"].status == "error"


def test_weights_that_are_no_numbers(world: Path) -> None:
    sick = judge(world, "a", "b")
    with torch.no_grad():
        sick.members[1].model.head.weight[0, 3] = math.nan
    assert {part["learned"].status for part in sick([asked(world)])[0]} == {"not_finite"}


def test_it_is_a_reward_among_others(world: Path, tmp_path: Path) -> None:
    """A weighted sum with a Python reward, behind a gate; groups that are submitted before are scored together, in any order of asking."""
    (tmp_path / "own.py").write_text(
        "def digits(prompt, response, **columns):\n    return float(sum(c.isdigit() for c in response))\n"
        "def not_no(prompt, response, **columns):\n    return float(response != 'no')\n"
    )
    specs = [
        RewardSpec("learned", "learned", weight=2.0),
        RewardSpec("digits", f"{tmp_path}/own.py:digits", weight=0.5),
        RewardSpec("gate", f"{tmp_path}/own.py:not_no", gate=True),
    ]
    groups = [asked(world), asked(world, TALK)]
    with RewardWorkers(specs, in_process={"learned": judge(world, "a")}) as workers:
        pending = [workers.submit(group) for group in groups]
        scored = [each.result() for each in reversed(pending)][::-1]
    said = iter(values(judge(world, "a"), groups))
    for group in scored:
        for response, digits, gate in zip(group.responses, (1, 1, 0), (1, 1, 0), strict=True):
            assert response.total == pytest.approx(gate * (2.0 * next(said) + 0.5 * digits), abs=1e-5)


def test_a_judge_that_fails_is_told_to_all_who_wait(world: Path) -> None:
    def broken(groups: Sequence[Group]) -> list[list[dict[str, object]]]:
        raise ValueError("it cannot")

    with RewardWorkers([RewardSpec("learned", "learned")], in_process={"learned": broken}) as workers:  # pyright: ignore[reportArgumentType]
        for pending in [workers.submit(asked(world)) for _ in range(2)]:
            with pytest.raises(ValueError, match="it cannot"):
                pending.result()


def test_what_is_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no reward model .*bradley_terry"):
        judge(world, "model")
    with pytest.raises(ValueError, match="a reward model, which writes nothing"):
        load_model(str(world / "a"))
    check_kind(str(world / "a"), reward=True)
    for file in (world / "words").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    big = {f"word{n}": n for n in range(2000)}
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(big, "word0")), eos_token="word1").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="tokens and its tokenizer has 2000; put the tokenizer that it was trained with"):
        RewardEnsemble("learned", LearnedReward((str(tmp_path),)), load_tokenizer(str(world / "model")))
    for settings in ({}, {"model": 3}, {"models": []}, {"model": "x", "combine": "best"}, {"model": "x", "modle": "y"}):
        with pytest.raises(ValueError, match="allowed: model"):
            LearnedReward.read("learned", settings)


def test_the_head_begins_small(world: Path) -> None:
    """Standard deviation 1/sqrt(d + 1), another draw for each seed, and no bias."""
    heads: list[Any] = [load_reward_model(str(world / "model"), seed).score for seed in (*range(20), 3)]
    weights = torch.stack([head.weight[0] for head in heads[:20]])
    size = weights.numel()
    assert float(weights.detach().square().mean().sqrt()) == pytest.approx(1 / math.sqrt(33), rel=4 / math.sqrt(2 * size))
    assert abs(float(weights.detach().mean())) < 4 / math.sqrt(33 * size)
    assert all(head.bias is None for head in heads)
    assert torch.equal(heads[3].weight, heads[20].weight) and not torch.equal(heads[3].weight, heads[4].weight)


def test_it_reads_the_last_token(world: Path) -> None:
    """A change of the last token moves the reward of that response alone; what is laid out beside it moves nothing."""
    group = asked(world)
    ids = lambda response: (*response.tokens[:-1], 7)  # noqa: E731
    changed = replace(group, responses=(*group.responses[:2], replace(group.responses[2], tokens=ids(group.responses[2]))))
    before, after = values(judge(world, "a"), [group]), values(judge(world, "a"), [changed])
    assert after[:2] == before[:2] and abs(after[2] - before[2]) > 1e-3


def make_judge(folder: Path, name: str) -> LocalPolicy:
    tokenizer = load_tokenizer(str(folder / "model"))
    return LocalPolicy(load_reward_model(str(folder / name)), tokenizer, LocalSettings(), frozenset({"reward"}))


def rewards_of(policy: LocalPolicy, groups: Sequence[Group]) -> list[float]:
    reward_R = policy.forward(plant(groups)).reward_R
    assert reward_R is not None
    return reward_R.tolist()


def test_its_scale(world: Path, tmp_path: Path) -> None:
    """Mean 0 and spread 1 on the samples, twice in a row, and after it was saved and taken up; differences keep their order."""
    policy, groups = make_judge(world, "b"), [asked(world), asked(world, TALK), asked(world, "5*5=", ("25", "24"))]
    raw = rewards_of(policy, groups)
    mean, std = mean_and_std(policy, groups, 30)
    assert (mean, std) == pytest.approx((fmean(raw), pstdev(raw)), abs=1e-6)
    for _ in range(2):
        mean, std = mean_and_std(policy, groups, 30)
        policy.causal.rescale(1 / std, -mean / std)  # pyright: ignore[reportAttributeAccessIssue]
        assert mean_and_std(policy, groups, 1000) == pytest.approx((0, 1), abs=1e-5)
    assert rewards_of(policy, groups) == pytest.approx([(each - fmean(raw)) / pstdev(raw) for each in raw], abs=1e-4)
    policy.save(tmp_path / "saved")
    other = make_judge(world, "c")
    other.load(tmp_path / "saved")
    assert rewards_of(other, groups) == rewards_of(policy, groups)
    same = [replace(groups[0], responses=groups[0].responses[:1])]
    with pytest.raises(ValueError, match="no scale makes their spread 1"):
        mean_and_std(policy, same, 1000)


def test_a_critic_begins_as_the_reward_model(world: Path) -> None:
    """Before a token that comes after the whole answer, its value is the answer's reward."""
    settings = LocalSettings(critic=str(world / "b"))
    policy = LocalPolicy(load_model(str(world / "model")), load_tokenizer(str(world / "model")), settings, frozenset({"value"}))
    group = asked(world)
    longer = tuple(replace(r, tokens=(*r.tokens, 5), mask=(*(False for _ in r.tokens), True)) for r in group.responses)
    value_M = policy.forward(plant([replace(group, responses=longer)])).value_M
    assert value_M is not None and value_M.tolist() == pytest.approx(values(judge(world, "b"), [group]), abs=1e-5)


ELSEWHERE = """
import json, sys, torch
from transformers import AutoModelForSequenceClassification
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
rows = json.loads(sys.argv[2])
width = max(map(len, rows))
padded = torch.tensor([row + [model.config.pad_token_id] * (width - len(row)) for row in rows])
with torch.no_grad():
    batch = model(input_ids=padded, attention_mask=(padded != model.config.pad_token_id).long()).logits
    alone = [float(model(input_ids=torch.tensor([row])).logits) for row in rows]
print(json.dumps([alone, batch[:, 0].tolist(), model.config.reward_bias]))
"""


def test_law_12_another_process_says_the_same(world: Path, tmp_path: Path) -> None:
    """transformers alone, without our code: row by row and as a padded batch, the reward less what our configuration adds."""
    policy, group = make_judge(world, "c"), asked(world)
    policy.causal.rescale(1.7, -0.6)  # pyright: ignore[reportAttributeAccessIssue]
    policy.save(tmp_path / "saved")
    rows = [[*group.prompt.tokens, *response.tokens] for response in group.responses]
    program = [sys.executable, "-c", ELSEWHERE, str(tmp_path / "saved"), json.dumps(rows)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    alone, padded, bias = json.loads(done.stdout)
    ours = [reward - bias for reward in rewards_of(policy, [group])]
    assert bias == pytest.approx(1.7 * 1.0 - 0.6)
    assert alone == pytest.approx(ours, abs=1e-5) and padded == pytest.approx(ours, abs=1e-5)
    assert len({len(row) for row in rows}) == 3, "rows of different lengths, or nothing is padded"


def test_no_answer_at_all_is_judged_by_its_end(world: Path) -> None:
    """An empty answer still has a token to read."""
    group = asked(world, texts=("",))
    empty = replace(group, responses=(Response(group.responses[0].tokens, (True,), "", stop="length"),))
    assert len(values(judge(world, "words"), [empty])) == 1
