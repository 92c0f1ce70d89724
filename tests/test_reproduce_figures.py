"""What claims compute from what they measured, against sums by hand."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from random import Random

import pytest

from ikusei.reproduce.claims import few_shot, filtered_dpo, lm_loss, online_dpo
from ikusei.tasks.cat_lover import verdict


def test_the_entropy_of_a_token_and_of_one_after_another() -> None:
    tokens = [0, 1, 1, 2, 1, 1, 0]
    assert lm_loss.entropy((token,) for token in tokens) == pytest.approx(
        -(2 * math.log(2 / 7) + 4 * math.log(4 / 7) + math.log(1 / 7)) / 7
    )
    # after 0 comes 1; after 1 twice 1, once 2 and once 0; after 2 comes 1
    assert lm_loss.entropy(pairwise(tokens)) == pytest.approx(-(2 * math.log(2 / 4) + 2 * math.log(1 / 4)) / 6)


def test_epochs_of_a_filter_are_told_from_the_pairs_of_its_steps() -> None:
    assert filtered_dpo.epochs([480.0] * 3 + [96.0] * 2 + [48.0]) == [0.5, 0.1, 0.05]


def test_a_broken_sentence_is_none() -> None:
    sentence = "ねこはとてもかわいいです。"
    assert verdict(sentence) == "desirable"
    assert {verdict(filtered_dpo.broken(Random(n), sentence)) for n in range(20)} == {"neither"}


def test_arms_are_compared_at_the_largest_kl_that_both_reach() -> None:
    found = {"start": [0.0, 1.0], "online": [[2.0, 3.0], [1.0, 2.5]], "own": [[0.5, 1.2], [4.0, 1.9]]}
    at, online, own = online_dpo.matched(found)
    assert (at, online) == (2.0, 3.0) and own == pytest.approx(1.2 + 0.7 * 1.5 / 3.5)


def test_a_cipher_uses_four_symbols_and_its_task_asks_every_letter() -> None:
    rules = [few_shot.cipher(9, n) for n in range(few_shot.NUM_RULES)]
    assert all(sorted(Counter(rule.values()).values()) == [3, 3, 3, 3] for rule in rules)
    assert len({tuple(rule.values()) for rule in rules}) == few_shot.NUM_RULES and rules != [few_shot.cipher(8, n) for n in range(12)]
    task = few_shot.Cipher(9, 2)
    rows = [task.row("test", n) for n in range(task.num_rows("test"))]
    assert {row.prompt: row.columns["answer"] for row in rows} == rules[2]
    [text] = few_shot.Ciphers(9, 9, 5).row("train", 0).responses
    said = [line.split("=") for line in str(text).split("\n\n")]
    assert len(said) == 9 and sum(all(rule[letter] == symbol for letter, symbol in said) for rule in rules) == 1
