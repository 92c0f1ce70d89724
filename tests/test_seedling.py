"""The shipped seedling: loads in plain transformers, is small, and is half-grown as README.md beside it says."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ikusei.loops.data import Rows
from ikusei.samplers.load import load_sampler
from ikusei.tasks.arithmetic import Arithmetic
from ikusei.text.answer import split_thought
from ikusei.types import Group, Sampling

FOLDER = Path(__file__).parents[1] / "seedling"


@pytest.fixture(scope="module")
def sums() -> list[Group]:
    """64 held-out sums, 16 answers each."""
    torch.set_num_threads(1)
    sampler = load_sampler("seedling", num_slots=256)
    return list(sampler.sample(Rows(Arithmetic(), sampler.tokenizer, 0).held_out(64), 16, Sampling(max_tokens=96), 0))


def test_it_is_a_plain_transformers_folder() -> None:
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) <= 8_000_000
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    model = AutoModelForCausalLM.from_pretrained(FOLDER)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "123+456="}], add_generation_prompt=True, return_tensors="pt", return_dict=False
    )
    written = model.generate(ids, max_new_tokens=40, do_sample=False, pad_token_id=tokenizer.pad_token_id)[0, ids.shape[1] :]
    assert written[-1] == tokenizer.eos_token_id
    for text in ("ねこはかわいい。", "<think>1+2=3</think>3", "漢字 🐈 ok\n"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_it_is_half_grown(sums: list[Group]) -> None:
    right = [[split_thought(r.text)[1] == str(g.prompt.columns["answer"]) for r in g.responses] for g in sums]
    assert 0.15 <= fmean(fmean(row) for row in right) <= 0.35


def test_it_is_lazy_and_well_formed(sums: list[Group]) -> None:
    thoughts = [split_thought(response.text) for group in sums for response in group.responses]
    assert fmean(thought == "" for thought, _ in thoughts) > 0.5
    assert fmean(thought is not None and answer != "" for thought, answer in thoughts) >= 0.9
