"""Pairs of a model's own answers: which answers are judged, which become a pair, and whether data fits the model."""

from __future__ import annotations

import io
import json
import random
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from ikusei.algos.lm import LanguageModelling
from ikusei.backends.local import LocalPolicy
from ikusei.forest import plant
from ikusei.guard.outcomes import RewardSpec
from ikusei.guard.workers import RewardWorkers
from ikusei.intervals import Interval
from ikusei.loops import diverse
from ikusei.loops.collect import CollectSettings, row_of
from ikusei.loops.diverse import most_representative, similarity, worth
from ikusei.loops.preference_gap import advice, preference_gap
from ikusei.loops.update import update
from ikusei.pipeline.train import train
from ikusei.recipe.reader import parse
from ikusei.recipe.stages import read_stages
from ikusei.rewards.votes import Votes
from ikusei.text.chat import continuation, render
from ikusei.types import Example, Group, Prompt, Response, Sampling, Score
from laws import worlds

QUIET = Console(file=io.StringIO())
TEXTS = ["the cat is warm", "the cat is very warm", "a cat is warm", "dogs bark at night", "dogs bark all night", "42"]


def test_similarity_by_hand() -> None:
    """`ab` and `abc` between their marks: 3 trigrams each of 4 and 5, two of them the same."""
    u = similarity(["ab", "abc", "zz"])
    a, b = {"\x02ab", "ab\x03", "b\x03\x03"}, {"\x02ab", "abc", "bc\x03", "c\x03\x03"}
    assert u[0, 1] == pytest.approx(len(a & b) / (len(a) * len(b)) ** 0.5)
    assert u[0, 2] == 0
    assert (np.diag(u) == 0).all()


def test_two_are_the_best_two() -> None:
    chance = random.Random(0)
    for diversity in (0.0, 0.3, 1.0, 3.0):
        for _ in range(20):
            texts = ["".join(chance.choice("abc") for _ in range(chance.randint(0, 7))) for _ in range(9)]
            u = similarity(texts)
            best = max(worth(u, pair, diversity) for pair in combinations(range(9), 2))
            assert worth(u, most_representative(texts, 2, diversity), diversity) == pytest.approx(best)


def test_exchanging_one_betters_what_was_grown() -> None:
    """Of four, growing from every start does not always find a set that no exchange of one answer betters."""
    chance, bettered = random.Random(1), 0
    for _ in range(60):
        texts = ["".join(chance.choice("abc") for _ in range(chance.randint(1, 8))) for _ in range(12)]
        u, chosen = similarity(texts), most_representative(texts, 4)
        grown = max(worth(u, diverse._grown(u, first, 4, 1.0), 1.0) for first in range(12))
        bettered += worth(u, chosen, 1.0) > grown + 1e-9
        for at, new in product(range(4), set(range(12)) - set(chosen)):
            assert worth(u, [*chosen[:at], new, *chosen[at + 1 :]], 1.0) <= worth(u, chosen, 1.0) + 1e-9
    assert bettered > 0


def test_answers_that_are_cut_off_are_no_end(tmp_path: Path) -> None:
    """Where no answer of a step is whole, none can be chosen to be judged; the collection goes on, and says what was written."""
    (tmp_path / "asked.jsonl").write_text('{"prompt": "1+1=", "answer": "2"}\n')
    text = "task: {name: files, path: asked.jsonl, test_share: 0.0}\nrewards: [exact]\nsampling: {max_tokens: 1}\n"
    (tmp_path / "cut.yaml").write_text(text + "collect: {kind: pairs, num_prompts: 1, num_responses: 5, judged: 2}\n")
    outcome = train(tmp_path / "cut.yaml", folder=tmp_path / "cut", console=QUIET)
    assert outcome.problem is not None and "no row was collected" in outcome.problem
    row = json.loads((tmp_path / "cut" / "metrics.jsonl").read_text())
    assert row["completions/clipped_ratio"] == 1
    assert row["tokens_sampled"] == 5


def test_diversity_keeps_them_apart() -> None:
    same, apart = most_representative(TEXTS, 2, 0.0), most_representative(TEXTS, 2, 1.0)
    assert same == [0, 1]
    assert len({i < 3 for i in apart}) == 2
    assert most_representative(TEXTS, 9) == list(range(6))


def scored(*answers: tuple[str, float]) -> Group:
    responses = tuple(Response((3,), (True,), text, stop="eos", score=Score(total)) for text, total in answers)
    return Group(Prompt("p", (1,), "1+1=", asked="1+1="), responses)


def test_threshold_pairs() -> None:
    """The first that earns enough against the first that does not, not the best against the worst."""
    group = scored(("b", 0.4), ("a", 0.7), ("best", 1.0), ("worst", 0.0))
    row = row_of(group, CollectSettings("pairs", choose="threshold", least=0.6))
    assert row == {"prompt": "1+1=", "chosen": "a", "rejected": "b", "rewards": [0.7, 0.4]}
    assert row_of(group, CollectSettings("pairs", choose="threshold", least=1.1)) is None


def test_judged_is_refused_where_nothing_could_be_compared() -> None:
    for judged in (1, 5, -1):
        with pytest.raises(ValueError, match=r"judged 0 \(all\) or 2 to num_responses=4"):
            CollectSettings(judged=judged)


@pytest.fixture(scope="module")
def parrot() -> LocalPolicy:
    """A policy that has learned to say one thing."""
    torch.set_num_threads(1)
    policy = worlds.make_talker()
    forest = plant(
        [Group(prompt_of(policy, text), (continuation(policy.tokenizer, prompt_of(policy, text), "はい"),)) for text in "abcdef"]
    )
    for _ in range(60):
        update(policy, [(forest, LanguageModelling().loss)], 1 << 20, lr=1e-2)
    return policy


def prompt_of(policy: LocalPolicy, text: str) -> Prompt:
    return render(policy.tokenizer, Example(text))


def pair(policy: LocalPolicy, text: str, chosen: str, rejected: str) -> Group:
    prompt = prompt_of(policy, text)
    responses = tuple(continuation(policy.tokenizer, prompt, said) for said in (chosen, rejected))
    return Group(replace(prompt, columns={"worth": {chosen: 0.2}}), responses, tiers=(0, 1))


def test_data_from_elsewhere_is_told(parrot: LocalPolicy, tmp_path: Path) -> None:
    (tmp_path / "calm.py").write_text("def calm(prompt, response, **columns):\n    return columns['worth'].get(response, 0.5)\n")
    own = [pair(parrot, text, "はい", "いいえ") for text in "abcdef" * 2]
    far = [pair(parrot, text, "123 xyz", "いいえ") for text in "abcdef" * 2]
    with RewardWorkers([RewardSpec("calm", f"{tmp_path}/calm.py:calm")]) as workers:
        found = [preference_gap(parrot, groups, Sampling(max_tokens=8), 0, 1 << 20, workers) for groups in (own, far)]
    near, away = found
    assert abs(near["gap/chosen"].value) < 0.2
    assert near["gap/rejected"].value > 1
    assert away["gap/chosen"].value > 2
    assert near["outdone"].value == 0.5 or near["outdone"].value < 0.5  # its own answer is the chosen one, and earns as much
    assert away["outdone"].value == 1
    assert advice(near) is None
    told = advice(away)
    assert told is not None
    assert "come from elsewhere" in told
    assert "100% of the prompts its own sample has a higher reward" in told
    assert preference_gap(parrot, [replace(own[0], tiers=None)], Sampling(max_tokens=8), 0, 1 << 20, None) == {}


def test_advice_asks_for_intervals_that_say_so() -> None:
    """A gap of 1.4 nats that may be 0.8 is no claim, nor is a share of 0.6 that may be 0.4."""
    unsure = {"gap/chosen": Interval(1.4, 0.8, 2.0), "outdone": Interval(0.6, 0.4, 0.8)}
    assert advice(unsure) is None
    told = advice(unsure | {"gap/chosen": Interval(1.4, 1.1, 1.7)})
    assert told is not None and "1.4 nats per token" in told and "higher reward" not in told
    told = advice(unsure | {"outdone": Interval(0.6, 0.51, 0.69)})
    assert told is not None and told.startswith("for 60% of the prompts its own sample has a higher reward")


COLLECTED = """
model: seedling
task: {{name: files, path: asked.jsonl, test_share: 0.0}}
sampling: {{max_tokens: 12, temperature: 1.3}}
collect: {{num_prompts: 6, num_responses: 6, judged: 3, {more}}}
rewards: {rewards}
"""


def test_people_judge_what_the_model_wrote(tmp_path: Path) -> None:
    """Its answers are written for them; asked again, they are the same and have their votes; an answer that nobody judged has none."""
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps({"prompt": f"ねこは{n}？"}) + "\n" for n in range(6)))
    (tmp_path / "answers.yaml").write_text(COLLECTED.format(more="kind: answers", rewards="[]"))
    assert train(tmp_path / "answers.yaml", folder=tmp_path / "answers", console=QUIET).exit_code == 0
    rows = [json.loads(line) for line in (tmp_path / "answers" / "data.jsonl").read_text().splitlines()]
    assert len(rows) >= 4
    assert {len(row["responses"]) for row in rows} <= {2, 3}
    votes = {row["prompt"]: dict(zip(row["responses"], range(len(row["responses"])), strict=True)) for row in rows}
    judged = [{**row, "votes": list(range(len(row["responses"])))} for row in rows[1:]]  # the first is left
    (tmp_path / "votes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in judged))
    (tmp_path / "pairs.yaml").write_text(COLLECTED.format(more="kind: pairs", rewards="[{path: votes, settings: {path: votes.jsonl}}]"))
    assert train(tmp_path / "pairs.yaml", folder=tmp_path / "pairs", console=QUIET).exit_code == 0
    pairs = [json.loads(line) for line in (tmp_path / "pairs" / "data.jsonl").read_text().splitlines()]
    (step,) = [json.loads(line) for line in (tmp_path / "pairs" / "metrics.jsonl").read_text().splitlines()]
    assert step["tokens_sampled"] == pytest.approx(6 * 6 * step["completions/mean_length"]), "of all that was written, judged or not"
    assert [row["prompt"] for row in pairs] == [row["prompt"] for row in judged]
    for row in pairs:
        assert votes[row["prompt"]][row["chosen"]] == len(votes[row["prompt"]]) - 1
        assert votes[row["prompt"]][row["rejected"]] == 0


def test_a_road_cannot_learn_from_what_nobody_judged(tmp_path: Path) -> None:
    stages = "  - {name: ask, collect: {kind: answers}}\n  - {name: dpo, task: {name: files, path: 'stage:ask'}, algorithm: dpo}\n"
    (tmp_path / "road.yaml").write_text("model: seedling\ntask: arithmetic\nstages:\n" + stages)
    with pytest.raises(ValueError, match="stage 'ask' leaves answers that nobody has judged, and here it takes rows"):
        read_stages(parse(tmp_path / "road.yaml"))


def test_votes_that_are_none(tmp_path: Path) -> None:
    file = tmp_path / "votes.jsonl"
    file.write_text('{"prompt": "a", "responses": ["x", "y"], "votes": [2, null]}\n{"prompt": "a", "completion": "x", "label": false}\n')
    votes, asked = Votes(str(file)), Prompt("p", (1,), "A", asked="a")
    assert [votes(asked, text) for text in ("x", "y", "z")] == [1.0, None, None]
    file = tmp_path / "bad.jsonl"
    file.write_text('{"prompt": "a", "responses": ["x", "y"], "votes": [2]}\n')
    with pytest.raises(ValueError, match=r"bad.jsonl:1: .*a number for each response"):
        Votes(str(file))
    with pytest.raises(ValueError, match="no such file"):
        Votes("nowhere.jsonl")
