"""What the loops say and take: held-out figures by hand, replay, examples in the prompt, collected rows, filters, stored references."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from ikusei.algos.bradley_terry import BradleyTerry
from ikusei.algos.dpo import DPO
from ikusei.algos.kto import KTO
from ikusei.algos.lm import LanguageModelling
from ikusei.backends.local import LocalPolicy
from ikusei.forest import Forest, Outputs, plant
from ikusei.guard.outcomes import RewardSpec
from ikusei.guard.workers import RewardWorkers
from ikusei.intervals import mean_interval
from ikusei.loops.collect import Collect, CollectSettings, row_of
from ikusei.loops.data import Rows
from ikusei.loops.few_shot import examples
from ikusei.loops.few_shot import held_out as asked_with_shots
from ikusei.loops.filtering import Filter
from ikusei.loops.held_out import held_out, on_rankings, on_texts
from ikusei.loops.online import Online, OnlineSettings
from ikusei.loops.precompute import Precompute, cached_logp_M, precompute_reference
from ikusei.loops.replay import Replay, ReplaySettings
from ikusei.loops.steps import StopRequest
from ikusei.loops.supervised import Supervised, SupervisedSettings
from ikusei.loops.update import update
from ikusei.protocols import Algorithm
from ikusei.tasks.arithmetic import Arithmetic
from ikusei.tasks.files import Files
from ikusei.types import Example, Group, Message, Prompt, Response, Sampling, Score, Split, Stop
from laws import worlds


@dataclass(frozen=True)
class Fixed:
    """Rows as they are given."""

    train: tuple[Example, ...] = ()
    test: tuple[Example, ...] = ()
    rewards: ClassVar[tuple[str, ...]] = ()

    def num_rows(self, split: Split) -> int:
        return len(self.train if split == "train" else self.test)

    def row(self, split: Split, index: int) -> Example:
        return (self.train if split == "train" else self.test)[index]


@dataclass(frozen=True)
class Says:
    """A policy that says made-up things: a log-prob for every token, a reward for each number of response tokens."""

    logp: float = -1.0
    rewards: tuple[float, ...] = ()
    version: int = 0

    def forward(self, forest: Forest) -> Outputs:
        M = forest.target_M.numel()
        ends = forest.last_R.tolist()
        reward_R = torch.tensor([self.rewards[int(forest.tokens_N[end])] for end in ends]) if self.rewards else None
        return Outputs(torch.full((M,), self.logp), torch.zeros(M), reward_R=reward_R)


def before(policy: Any, needs: frozenset[str] = frozenset(), reference: Any = None) -> Precompute:
    return Precompute(needs, policy, reference, tokens_per_microbatch=12)


def group(lengths: Sequence[int], tiers: Sequence[int] | None = None, last: Sequence[int] | None = None, **more: Any) -> Group:
    """Responses of these lengths, all scored; `last` are their last tokens."""
    ends = last or range(len(lengths))
    responses = tuple(Response((*(9,) * (n - 1), end), (True,) * n, "x" * n) for n, end in zip(lengths, ends, strict=True))
    return Group(Prompt(f"{lengths}", (1, 2), "?"), responses, tiers=None if tiers is None else tuple(tiers), **more)


@pytest.fixture(scope="module")
def talker() -> LocalPolicy:
    torch.set_num_threads(1)
    return worlds.make_talker()


@pytest.fixture
def calm(tmp_path: Path) -> RewardSpec:
    (tmp_path / "calm.py").write_text("def calm(prompt, response, **columns):\n    return columns.get('worth', {}).get(response, 0.5)\n")
    return RewardSpec("calm", f"{tmp_path}/calm.py:calm")


# ------------------------------------------------------------------------------------------------------------- held-out figures


def test_held_out_is_each_row_by_itself() -> None:
    """DPO with beta 0.5: margins 0.5 (2 - 3)(-1 + 0.4) = 0.3 and 0.5 (4 - 1)(-0.6) = -0.9; a row without an order does not count."""
    rows = [group((2, 3), (0, 1)), group((4, 1), (0, 1)), group((2,))]
    found = held_out(before(Says(-1.0), frozenset({"reference"}), Says(-0.4)), DPO(beta=0.5), rows)
    assert found["num_rows"] == 2
    assert found["loss"].value == pytest.approx((math.log1p(math.exp(-0.3)) + math.log1p(math.exp(0.9))) / 2, rel=1e-5)
    assert found["rewards/accuracies"].value == 0.5
    assert found["rewards/margins"].value == pytest.approx((0.3 - 0.9) / 2, rel=1e-5)
    assert found["loss"].low < found["loss"].value < found["loss"].high


def test_held_out_means_over_good_and_bad_answers() -> None:
    """KTO's rewards are means over the good answers and over the bad ones, of which there are fewer: -0.5 n 0.6 for n tokens."""
    labelled = [(2, 1.0), (4, 1.0), (1, 1.0), (5, 0.0)]
    rows = [replace(group((n,)), responses=(replace(group((n,)).responses[0], label=label),)) for n, label in labelled]
    found = held_out(before(Says(-1.0), frozenset({"reference", "mismatched"}), Says(-0.4)), KTO(beta=0.5), rows)
    assert found["rewards/chosen"].value == pytest.approx(-0.3 * (2 + 4 + 1) / 3, rel=1e-5)
    assert found["rewards/rejected"].value == pytest.approx(-0.3 * 5, rel=1e-5)
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    assert found["loss"].value == pytest.approx((sum(sigmoid(0.3 * n) for n in (2, 4, 1)) + sigmoid(-0.3 * 5)) / 4, rel=1e-5)


def test_bits_per_byte_of_a_uniform_model() -> None:
    """log2 V for each token; a text of three letters is nine bytes and four tokens, and one that is scored in part does not count."""
    words = 97
    texts = [("ねこ。", 4), ("ab", 3)]
    rows = [Group(Prompt(text, (1,), ""), (Response((5,) * n, (True,) * n, text),)) for text, n in texts]
    part = Group(Prompt("part", (1,), ""), (Response((5, 5), (True, False), "user: hello"),))
    found = on_texts(before(Says(-math.log(words))), [*rows, part])["bits_per_byte"]
    assert found.value == pytest.approx(math.log2(words) * 7 / 11, rel=1e-5)
    # 4 tokens of 9 bytes are 19/11 fewer than by the ratio, 3 of 2 as many more; over the mean of 5 1/2 bytes
    around = mean_interval([math.log2(words) * (7 / 11 + sign * 19 / 11 / 5.5) for sign in (-1, 1)])
    assert (found.low, found.high) == pytest.approx((around.low, around.high), rel=1e-5)
    assert on_texts(before(Says()), [part]) == {"bits_per_byte": None}


def test_what_is_said_of_a_reward_model() -> None:
    """Two rankings: rewards 3 > 1 > 2 for tiers 0, 1, 1 and 1 < 2 for tiers 0, 1."""
    rewards = (3.0, 1.0, 2.0, 1.0, 2.0)
    rows = [group((5, 2, 2), (0, 1, 1)), replace(group((3, 3), (0, 1), last=(3, 4)), prompt=Prompt("two", (1,), ""))]
    found = on_rankings(before(Says(rewards=rewards)), rows)
    assert found["accuracy"].value == pytest.approx((1 + 0) / 2)
    # ranks of the rewards 3, 1, 2 against those of tiers with a tie, 3, 1.5, 1.5: Pearson's of these is 0.8660; the pair gives -1
    assert found["agreement"].value == pytest.approx((math.sqrt(3) / 2 - 1) / 2)
    assert (found["reward_mean"], found["reward_std"]) == pytest.approx((1.8, math.sqrt(0.56)))
    # less the prompt's mean: rewards 1, -1, 0 and -0.5, 0.5; lengths 2, -1, -1 and 0, 0
    assert found["length_bias"] == pytest.approx(3 / math.sqrt(2.5 * 6))
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    stated = [sigmoid(1), sigmoid(1), sigmoid(2)]  # 3 over 2 right, 2 over 1 wrong, 3 over 1 right
    assert sorted(row["stated"] for row in found["calibration"]) == pytest.approx(stated)
    assert sum(row["right"] * row["pairs"] for row in found["calibration"]) == 2
    assert found["calibration_error"] == pytest.approx(((1 - stated[0]) + stated[1] + (1 - stated[2])) / 3)


def test_a_reward_model_that_says_the_same_of_all() -> None:
    found = on_rankings(before(Says(rewards=(1.0, 1.0))), [group((2, 3), (0, 1))])
    assert found["accuracy"].value == 0.5 and found["length_bias"] == 0.0 and "agreement" not in found
    assert on_rankings(before(Says(rewards=(1.0, 1.0))), [group((2, 3), (0, 0))]) == {}


# ------------------------------------------------------------------------------------------------------------- rows of data


ROWS = (
    Example("1+1=", (" 2", "no"), {"worth": {" 2": 0.9}}, tiers=(0, 1), margin=0.4, weight=2.5),
    Example("2+2=", (" 4", "never"), {"worth": {" 4": 0.1}}, tiers=(0, 1)),
    Example("3+2=", (" 5", "5"), {"worth": {" 5": 0.9}}, tiers=(0, 1)),
    Example("4+2=", (" 6", "?"), {"worth": {" 6": 0.9}}, tiers=(0, 1)),
)


def test_margin_weight_label_and_columns_arrive(talker: LocalPolicy, tmp_path: Path) -> None:
    """From the file's columns to the loss: half the weight is half the gradient, a margin moves the loss as it should."""
    (tmp_path / "rows.jsonl").write_text(
        json.dumps({"prompt": "1+1=", "chosen": " 2", "rejected": "no", "margin": 0.4, "weight": 2.5, "who": "me"})
        + "\n" + json.dumps({"prompt": "2+1=", "chosen": " 3", "rejected": "no", "margin": 0, "who": "you"}) + "\n"
    )  # fmt: skip
    rows = Rows(Files(tmp_path / "rows.jsonl", test_share=0.0), talker.tokenizer, 0)
    first = rows.example("train", 0)
    assert (first.margin, first.weight, first.pairs, dict(first.prompt.columns)) == (0.4, 2.5, [(0, 1)], {"who": "me"})
    says = Says(rewards=tuple(float(n) for n in range(len(talker.tokenizer))))
    losses = {}
    for name, each in {"as it is": first, "plain": replace(first, margin=None, weight=1.0)}.items():
        forest = plant([each])
        forest = forest.with_streams(BradleyTerry().credit([each], forest, {}))
        out = says.forward(replace(forest, last_R=torch.tensor([0, 1])))
        losses[name] = (float(BradleyTerry().loss(out, forest).value), out.reward_R)
    reward_R = losses["plain"][1]
    assert reward_R is not None
    ahead = float(reward_R[0] - reward_R[1])
    assert losses["plain"][0] == pytest.approx(math.log1p(math.exp(-ahead)), rel=1e-4)
    assert losses["as it is"][0] == pytest.approx(2.5 * math.log1p(math.exp(0.4 - ahead)), rel=1e-4)
    labelled = Rows(Fixed((Example("1+1=", (" 2",), labels=(1.0,)), Example("1+1=", (" 3",), labels=(0.0,)))), talker.tokenizer, 0)
    groups = [labelled.example("train", index) for index in range(2)]
    zeros = plant(groups).with_streams({f"other_{name}logp_M": torch.zeros(plant(groups).target_M.numel()) for name in ("", "ref_")})
    assert KTO().credit(groups, zeros, {})["verdict_R"].tolist() == [1.0, -1.0]


@dataclass(frozen=True)
class Turning:
    """Three questions, again and again."""

    end: int | None

    rewards: ClassVar[tuple[str, ...]] = ()

    def num_rows(self, split: str) -> int | None:
        return self.end

    def row(self, split: str, index: int) -> Example:
        return Example(f"{(1, 1, 2, 3)[index % 4]}+1=")


@pytest.mark.parametrize(("end", "count", "expected"), [(None, 2, [0, 2]), (None, 9, [0, 2, 3]), (3, 9, [0, 2]), (4, 3, [0, 2, 3])])
def test_a_held_out_question_is_asked_once(talker: LocalPolicy, end: int | None, count: int, expected: list[int]) -> None:
    """For an interval would take it for a second prompt."""
    rows = Rows(Turning(end), talker.tokenizer, 0)
    assert list(rows.held_out_at(count)) == expected
    assert [prompt.text for prompt in rows.held_out(count)] == [rows.prompt("test", index).text for index in expected]
    formed = asked_with_shots(rows, count, form="{prompt}")
    assert [(prompt.id, prompt.text) for prompt in formed] == [(prompt.id, prompt.text) for prompt in rows.held_out(count)]


def test_a_cut_row_says_what_is_left_of_it(talker: LocalPolicy) -> None:
    rows = Rows(Fixed((Example("1+1=", ("abcdef",)),)), talker.tokenizer, 0, cut_at=11)
    (response,) = rows.example("train", 0).responses
    assert (response.text, response.stop) == ("abc", "length") and len(response.tokens) == 3


def test_what_the_reference_said_is_kept(talker: LocalPolicy, tmp_path: Path) -> None:
    """Asked once, then read: to the bit, for rows in any order, and no other model is asked."""
    rows = Rows(Fixed(ROWS), talker.tokenizer, 0)
    groups = [rows.example("train", index) for index in range(4)]
    said = precompute_reference(talker, groups, tmp_path / "said.parquet", 1000)
    forest = plant([groups[3], groups[1]])
    read = precompute_reference(Says(), [], tmp_path / "said.parquet", 1000)
    assert torch.equal(cached_logp_M(said, [groups[3], groups[1]]), cached_logp_M(read, [groups[3], groups[1]]))
    assert cached_logp_M(said, [groups[3], groups[1]]).tolist() == pytest.approx(talker.forward(forest).logp_M.tolist(), abs=1e-5)


def test_a_filter_drops_what_the_policy_has_outgrown(talker: LocalPolicy, calm: RewardSpec) -> None:
    """Row 1, whose chosen answer earns less than what the policy writes, is dropped before the first epoch; the epochs go over the rest."""
    rows = Rows(Fixed(ROWS), talker.tokenizer, 0)
    with RewardWorkers([calm]) as workers:
        chosen = Filter(rows, talker, workers, Sampling(max_tokens=4), seed=1)
        seen, state = [], None
        for step in range(6):
            groups, state = chosen.take(step, 1, state)
            seen += [group.prompt.text for group in groups]
        assert state is not None and state["rows"] == [0, 2, 3] and state["epoch"] == 1
        assert sorted(seen[:3]) == sorted(seen[3:]) == ["1+1=", "3+2=", "4+2="]
        with pytest.raises(ValueError, match="3 pairs"):
            chosen.take(0, 4, None)


def test_a_pair_that_earns_as_much_as_the_policys_answer_is_dropped(talker: LocalPolicy, calm: RewardSpec) -> None:
    """What it writes is worth 0.5, so 0.5 teaches nothing and 0.51 does."""
    worth = {" 2": 0.5, " 3": 0.51, " 4": 0.49}
    rows = tuple(Example(f"{n}+1=", (f" {n + 1}", "no"), {"worth": worth}, tiers=(0, 1)) for n in (1, 2, 3))
    with RewardWorkers([calm]) as workers:
        assert Filter(Rows(Fixed(rows), talker.tokenizer, 0), talker, workers, Sampling(max_tokens=4), seed=1).passing(range(3), 0) == [1]


def test_what_the_reference_said_of_many_rows_is_kept_of_each(tmp_path: Path) -> None:
    """They are asked 256 at a time."""
    groups = [replace(group((n % 3 + 1,)), prompt=Prompt(f"{n}", (1,), "")) for n in range(300)]
    said = precompute_reference(Says(-0.25), groups, tmp_path / "said.parquet", 1000)
    assert said == {(f"{n}", 0): [-0.25] * (n % 3 + 1) for n in range(300)}


# ------------------------------------------------------------------------------------------------------------- replay


def run_one(algorithm: Algorithm, rows: Rows, replay: Replay | None) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """The metrics and the weights after one supervised step of a fresh policy."""
    policy = worlds.make_talker()
    settings = SupervisedSettings(steps=1, examples_per_step=2, lr=1e-3, in_order=True, tokens_per_microbatch=30)
    loop = Supervised(policy, rows, algorithm, settings, before(policy), replay)
    (step,) = list(loop.steps(0, {}, StopRequest()))
    return step.metrics, worlds.weights(policy)


def test_replay_adds_its_weight_times_its_mean(talker: LocalPolicy) -> None:
    """loss = main + weight * replay, and the update is that of the sum, made by hand."""
    main = Rows(Fixed((Example("1+1=", (" 2",)), Example("2+1=", (" 3 or so",)))), talker.tokenizer, 0, in_order=True)
    old = Rows(Fixed(tuple(Example(None, (text,)) for text in ("ねこはすき。", "いぬ", "abc"))), talker.tokenizer, 0)
    replay = Replay(old, ReplaySettings(examples=2, weight=0.3))
    metrics, mixed = run_one(LanguageModelling(), main, replay)
    alone, _ = run_one(LanguageModelling(), main, None)
    assert metrics["loss"] == pytest.approx(alone["loss"] + 0.3 * metrics["replay/loss"], rel=1e-5)
    texts = plant(old.examples(0, 2))
    assert metrics["replay/loss"] == pytest.approx(-float(talker.forward(texts).logp_M.mean()), rel=1e-5)
    policy, forest = worlds.make_talker(), plant(main.examples(0, 2))

    def scaled(out: Outputs, part: Forest) -> Any:
        loss = LanguageModelling().loss(out, part)
        return replace(loss, value=0.3 * loss.value)

    update(policy, [(forest, LanguageModelling().loss), (texts, scaled)], 1000, lr=1e-3)
    worlds.assert_close(mixed, worlds.weights(policy), 1e-5)


def test_each_step_replays_rows_of_its_own(talker: LocalPolicy) -> None:
    """Two of five texts in each step: every one of them once before any comes again."""
    old = Rows(Fixed(tuple(Example(None, ("abcde"[:n],)) for n in (1, 2, 3, 4, 5))), talker.tokenizer, 0)
    replay = Replay(old, ReplaySettings(examples=2))
    said = [int(length) for step in range(3) for forest, _ in replay.pieces(step) for length in forest.length_R.tolist()]
    assert len(said) == 6 and sorted(said[:5]) == [2, 3, 4, 5, 6], "letters, and the end"


def test_replay_beside_sampling(talker: LocalPolicy, calm: RewardSpec) -> None:
    """PPO-ptx: every update of a step adds the same rows."""
    from ikusei.algos.ppo import PPO

    old = Rows(Fixed(tuple(Example(None, (text,)) for text in ("ねこはすき。", "いぬ", "abc"))), talker.tokenizer, 0)
    found = {}
    for weight in (None, 0.7):
        tokenizer, needs = talker.tokenizer, PPO().needs
        policy = LocalPolicy(worlds.make_talker().causal.model, tokenizer, worlds.LocalSettings(layout="forest"), needs)
        settings = OnlineSettings(steps=1, prompts_per_step=2, num_responses=2, updates_per_step=1, lr=1e-3)
        rows = Rows(Arithmetic(digits=1), tokenizer, 0, policy.causal.context)
        replay = None if weight is None else Replay(old, ReplaySettings(2, weight))
        with RewardWorkers([calm]) as workers:
            known = before(policy, needs, policy.reference())
            loop = Online(policy, rows, workers, PPO(), Sampling(max_tokens=6), settings, 0, known, replay)
            (step,) = list(loop.steps(0, PPO().start(), StopRequest()))
        found[weight] = step.metrics
    texts = -float(talker.forward(plant(old.examples(0, 2))).logp_M.mean())
    assert found[0.7]["replay/loss"] == pytest.approx(texts, rel=1e-5)
    assert found[0.7]["loss"] == pytest.approx(found[None]["loss"] + 0.7 * texts, rel=1e-5)


# ------------------------------------------------------------------------------------------------------------- examples in the prompt


def test_examples_by_chat_template_and_by_form(talker: LocalPolicy) -> None:
    rows = Rows(Arithmetic(digits=1), talker.tokenizer, 3)
    (first, second), (plain, _) = asked_with_shots(rows, 2, shots=2), rows.held_out(2)
    shown = examples(rows, 0, 2)
    turns = [(turn["role"], turn["content"]) for turn in first.asked or () if not isinstance(turn, str)]
    expected = [pair for row in shown for pair in (("user", row.prompt), ("assistant", str(row.columns["answer"])))]
    assert turns == [*expected, ("user", plain.text)]
    assert first.id == plain.id and first.columns == plain.columns and first.tokens != second.tokens
    assert [turn["content"] for turn in second.asked or () if not isinstance(turn, str)][:2] != [turns[0][1], turns[1][1]]
    (formed,) = asked_with_shots(rows, 1, shots=2, form="Q: {prompt}\nA:")
    assert formed.text == "".join(f"Q: {row.prompt}\nA:{row.columns['answer']}\n\n" for row in shown) + f"Q: {plain.text}\nA:"
    assert asked_with_shots(rows, 2, shots=2) == [first, second]
    (zero,) = asked_with_shots(rows, 1, shots=0, form="Q: {prompt}\nA:")
    assert zero.text == f"Q: {plain.text}\nA:"
    begin = str(talker.tokenizer.bos_token or "")  # in raw text, though there is a chat template
    assert [str(talker.tokenizer.decode(list(each.tokens))).removeprefix(begin) for each in (formed, zero)] == [formed.text, zero.text]


def test_the_question_itself_is_never_an_example(talker: LocalPolicy) -> None:
    """Not even where the data holds it in both splits, and many times over."""
    asked = [Example("".join(("1+", "1=")), ("2",)) for _ in range(10)]  # equal texts, no two of which are one object, as tasks make them
    rows = Rows(Fixed((*asked[1:], Example("2+2=", ("4",)), Example("3+3=", ("6",))), (asked[0],)), talker.tokenizer, 0)
    assert sorted(str(row.prompt) for row in examples(rows, 0, 2)) == ["2+2=", "3+3="]
    with pytest.raises(ValueError, match="3 examples asked for and 2 different questions found"):
        examples(rows, 0, 3)


def test_examples_that_cannot_be_shown(talker: LocalPolicy) -> None:
    rows = Rows(Arithmetic(digits=1), talker.tokenizer, 3, context=60)
    with pytest.raises(ValueError, match=r"test row 0 with 9 examples takes \d+ tokens and the context holds 60"):
        asked_with_shots(rows, 1, shots=9)
    no_gold = Fixed(tuple(Example(f"{n}+1=") for n in range(4)), (Example("1+9="),))
    with pytest.raises(ValueError, match="no gold answer to show"):
        asked_with_shots(Rows(no_gold, talker.tokenizer, 0), 1, shots=1)
    talk = (Message(role="user", content="a"),)
    with pytest.raises(ValueError, match="one question each"):
        asked_with_shots(Rows(Fixed((Example("a", ("b",)),), (Example(talk),)), talker.tokenizer, 0), 1, shots=1)


# ------------------------------------------------------------------------------------------------------------- collected rows


def scored(*answers: tuple[str, float, Stop], asked: Any = "1+1=") -> Group:
    responses = tuple(Response((1,), (True,), text, stop=stop, score=Score(total)) for text, total, stop in answers)
    return Group(Prompt("p", (1,), "1+1=", {}, asked), responses)


MIXED = scored(("b", 0.5, "eos"), ("a", 1.0, "eos"), ("cut", 9.0, "length"), ("b", 0.5, "eos"), ("c", 0.5, "stop"), (" ", 7.0, "eos"))


def test_collected_rows() -> None:
    """Cut off and empty answers are left out, the same text counts once, equal totals tie, the first written wins among equals."""
    assert row_of(MIXED, CollectSettings("rankings")) == {
        "prompt": "1+1=", "responses": ["b", "a", "c"], "ranking": [2, 1, 2], "rewards": [0.5, 1.0, 0.5]
    }  # fmt: skip
    assert row_of(MIXED, CollectSettings("pairs")) == {"prompt": "1+1=", "chosen": "a", "rejected": "b", "rewards": [1.0, 0.5]}
    assert row_of(MIXED, CollectSettings("best")) == {"prompt": "1+1=", "completion": "a", "reward": 1.0}
    assert row_of(MIXED, CollectSettings("best", least=1.1)) is None
    tied = scored(("a", 0.3, "eos"), ("b", 0.3, "eos"))
    assert [row_of(tied, CollectSettings(kind)) for kind in ("rankings", "pairs")] == [None, None]
    assert row_of(scored(("a", 2.0, "length")), CollectSettings("best")) is None


def test_the_last_step_of_a_collection_asks_for_what_is_left(talker: LocalPolicy, calm: RewardSpec) -> None:
    """Five prompts, two at a time: 2, 2 and 1, each once; a collection that goes on after the first step asks for the others."""
    rows = Rows(Arithmetic(digits=2), talker.tokenizer, 0)
    with RewardWorkers([calm]) as workers:
        settings = CollectSettings(num_prompts=5, num_responses=2, prompts_per_step=2)
        loop = Collect(talker.snapshot(), rows, workers, Sampling(max_tokens=2), settings, 0)
        steps = list(loop.steps(0, StopRequest()))
        later = list(loop.steps(1, StopRequest()))
    assert [(step.number, len(step.groups)) for step in steps] == [(1, 2), (2, 2), (3, 1)]
    ids = [prompt.id for prompt in rows.prompts_from(0, 5)]
    assert [group.prompt.id for step in steps for group in step.groups] == ids and len(set(ids)) == 5
    assert [(step.number, [group.prompt.id for group in step.groups]) for step in later] == [(2, ids[2:4]), (3, ids[4:])]


@pytest.mark.parametrize("asked", ["1+1=", (Message(role="system", content="be kind"), Message(role="user", content="1+1="))])
@pytest.mark.parametrize("kind", ["rankings", "pairs", "best"])
def test_collected_rows_are_read_back(kind: Any, asked: Any, talker: LocalPolicy, tmp_path: Path) -> None:
    row = row_of(replace(MIXED, prompt=replace(MIXED.prompt, asked=asked)), CollectSettings(kind))
    (tmp_path / "data.jsonl").write_text(json.dumps(row) + "\n")
    group = Rows(Files(tmp_path / "data.jsonl", test_share=0.0), talker.tokenizer, 0).example("train", 0)
    assert group.prompt.asked == asked
    assert [response.text for response in group.responses] == {"rankings": ["b", "a", "c"], "pairs": ["a", "b"], "best": ["a"]}[kind]
    assert group.tiers == {"rankings": (1, 0, 1), "pairs": (0, 1), "best": None}[kind]
