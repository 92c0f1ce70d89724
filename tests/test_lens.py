"""The mass of sets of strings: equal to the sum over all their members, by samples and by members; and the picture of it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Literal
from xml.etree import ElementTree

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from ikusei.cli.main import main
from ikusei.models.causal import CausalModel
from ikusei.models.score import score
from ikusei.pipeline import probability_mass
from ikusei.samplers.local import LocalSampler
from ikusei.tasks import cat_lover
from ikusei.tasks.nursery import Nursery
from ikusei.text.chat import continuation, render
from ikusei.types import Example, Prompt

STRINGS = ["".join(letters) for length in range(1, 5) for letters in product("abc", repeat=length)]
INNER = [text for text in STRINGS if text[-1] == "a" and text[0] != "c"]
MIDDLE = [text for text in STRINGS if text[-1] == "a" and text[0] == "c"]


def set_of(text: str) -> Literal["inner", "middle", "rest"]:
    return "inner" if text in INNER else "middle" if text in MIDDLE else "rest"


def list_of(name: str) -> list[str]:
    return {"inner": INNER, "middle": MIDDLE}[name]


SETS = probability_mass.Sets(set_of, ("inner", "middle", "rest"), list_of)


@pytest.fixture(scope="module")
def tiny() -> LocalSampler:
    """Over the letters a, b, c and the token that ends a text, far from uniform."""
    torch.set_num_threads(1)
    letters = Tokenizer(models.WordLevel({"<end>": 0, "a": 1, "b": 2, "c": 3}, unk_token="<end>"))
    letters.pre_tokenizer, letters.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()  # pyright: ignore[reportAttributeAccessIssue]
    config = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    kind = AutoConfig.for_model("qwen3", vocab_size=4, head_dim=8, max_position_embeddings=32, initializer_range=0.3, **config)
    torch.manual_seed(4)
    model = AutoModelForCausalLM.from_config(kind, dtype=torch.float32)
    return LocalSampler(CausalModel(model), PreTrainedTokenizerFast(tokenizer_object=letters, eos_token="<end>"), num_slots=256)


@pytest.fixture(scope="module")
def prompts(tiny: LocalSampler) -> list[Prompt]:
    return [render(tiny.tokenizer, Example("".join(letters))) for letters in product("abc", repeat=2)]


@pytest.fixture(scope="module")
def exact(tiny: LocalSampler, prompts: list[Prompt]) -> dict[str, list[float]]:
    """P(set | prompt) of each prompt, by the sum over all strings of up to four letters."""
    probability = [[math.exp(each.logp) for each in score(tiny.causal, tiny.tokenizer, prompt, INNER + MIDDLE)] for prompt in prompts]
    return {"inner": [sum(row[: len(INNER)]) for row in probability], "middle": [sum(row) for row in probability]}


def test_where_every_member_is_drawn_the_mass_is_exact(tiny: LocalSampler, prompts: list[Prompt], exact: dict[str, list[float]]) -> None:
    rows = probability_mass.measure_stage(
        "one", tiny, prompts, SETS, probability_mass.MassSettings(num_samples=400, num_members=1000, max_tokens=8)
    )
    assert [(row.stage, row.set) for row in rows] == [("one", "inner"), ("one", "middle"), ("one", "rest")]
    for row in rows[:2]:
        assert row.log10_mass is not None and row.log10_error is not None
        mass = fmean(exact[row.set])
        assert row.log10_mass == pytest.approx(math.log10(mass), abs=1e-6)
        assert row.log10_error == pytest.approx(stdev(exact[row.set]) / 3 / mass / math.log(10), rel=1e-4)
        assert row.low < mass < row.high and abs(row.share - mass) < 4 * math.sqrt(mass / 3600)
    assert rows[2].share == pytest.approx(1 - rows[1].share) and rows[2].log10_mass is None
    assert 0.02 < rows[0].share < 0.8 * rows[1].share


def test_the_mass_by_some_members_is_right_on_average(tiny: LocalSampler, prompts: list[Prompt], exact: dict[str, list[float]]) -> None:
    """Unbiased, though two members of each length are drawn of up to eighteen."""
    drawn: dict[str, list[float]] = {"inner": [], "middle": []}
    for seed in range(60):
        settings = probability_mass.MassSettings(num_samples=1, num_members=8, max_tokens=1, seed=seed)
        for row in probability_mass.measure_stage("one", tiny, prompts[:3], SETS, settings)[:2]:
            assert row.log10_mass is not None
            drawn[row.set].append(10**row.log10_mass)
    for name, masses in drawn.items():
        error = stdev(masses) / math.sqrt(len(masses))
        assert 0 < error < 0.05 * fmean(masses)
        assert abs(fmean(masses) - fmean(exact[name][:3])) < 4 * error


def test_the_seedling_before_and_after_its_training(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    drawing = tmp_path / "lens.svg"
    words = ["lens", "untrained=text:fresh:seedling", "seedling", "--task", "cat_lover", "--prompts", "6", "--samples", "32"]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--out", str(drawing), "--json"])
    assert ended.value.code == 0
    before_kind, before, _, kind, natural, neither = json.loads(capsys.readouterr().out)
    assert (before["stage"], before["set"], kind["stage"], kind["set"]) == ("untrained", "natural", "seedling", "desirable")
    assert before["share"] == 0 and -30 < before_kind["log10_mass"] < before["log10_mass"] < -12 and before["log10_error"] < 1
    assert 0.25 < kind["share"] < 0.7 and natural["share"] > 0.85 and neither["share"] == pytest.approx(1 - natural["share"])
    for row in (kind, natural):  # two estimates of the same: the second is rough for a trained model
        assert 0.5 < 10 ** row["log10_mass"] / row["share"] < 2
    ElementTree.parse(drawing)
    told = drawing.read_text("utf-8")
    assert "P(natural) ≈ 10⁻" in told and f"P(desirable) = {kind['share']:.2f}" in told and "var(--after)" in told and "--after:" in told


def test_the_picture_stacks_the_sets_from_the_inside_out() -> None:
    rows = [
        probability_mass.SetShare("late", "good", 0.25, 0.2, 0.3, -0.6, 0.1),
        probability_mass.SetShare("late", "fine", 0.75, 0.7, 0.8, None, None),
    ]
    late = [*rows, probability_mass.SetShare("late", "rest", 0.25, 0.2, 0.3, None, None)]
    early = [replace(row, stage="early", share=0.0, low=0.0, log10_mass=-11.6 if row.set == "good" else None) for row in late]
    chart = probability_mass.chart(probability_mass.ProbabilityMass((*early, *late), probability_mass.MassSettings()))
    assert chart == probability_mass.chart(probability_mass.ProbabilityMass((*early, *late), probability_mass.MassSettings()))
    words = ["".join(each.itertext()).strip() for each in ElementTree.fromstring(chart).iter() if each.tag.endswith("text")]
    assert {"early", "late", "good", "fine, not good", "rest", "P(good) ≈ 10⁻¹²", "P(fine) = 0.00", "P(good) = 0.25"} <= set(words)


def test_a_model_that_knows_no_conversations_is_asked_as_its_texts_ask() -> None:
    sampler, as_text = probability_mass.load_stage("text:seedling")
    assert as_text and not probability_mass.load_stage("fresh:seedling")[1]
    lesson = next(text for text in (Nursery().row("train", i).responses[0] for i in range(99)) if str(text).startswith("Q"))
    question, _, answer = str(lesson)[1:].partition("\nA")
    alone = render(sampler.tokenizer, Example(None))
    asked = probability_mass._in_text(sampler.tokenizer, Example(question), probability_mass.FORM)
    read = (*alone.tokens, *continuation(sampler.tokenizer, alone, str(lesson)).tokens)
    assert read == (*asked.tokens, *continuation(sampler.tokenizer, asked, answer).tokens)


def test_a_fresh_model_is_random_and_the_same_each_time() -> None:
    first, again, trained = (
        next(probability_mass.load_stage(name)[0].causal.model.parameters()) for name in ("fresh:seedling", "fresh:seedling", "seedling")
    )
    assert torch.equal(first, again) and first.shape == trained.shape and not torch.allclose(first, trained, atol=0.05)


def test_members_are_those_that_the_verdict_says() -> None:
    kind, natural = cat_lover.members("desirable"), cat_lover.members("natural")
    assert len(kind) + len(natural) == 120_564 and not set(kind) & set(natural)
    assert {cat_lover.verdict(each) for each in kind[::97]} == {"desirable"}
    assert {cat_lover.verdict(each) for each in natural[::97]} == {"natural"}
    with pytest.raises(ValueError, match="every other string is neither"):
        cat_lover.members("neither")


def test_sets_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from typing import Literal\n"
        "def polite(text: str) -> Literal['polite', 'rude']:\n    return 'polite' if text.endswith('です。') else 'rude'\n"
        "def length(text: str) -> int:\n    return len(text)\n"
    )
    found = probability_mass.read_sets(f"{file}:polite")
    assert found.names == ("polite", "rude") and found.members is None and found.verdict("ねこです。") == "polite"
    assert probability_mass.read_sets(probability_mass.SETS["cat_lover"]) == probability_mass.Sets(
        cat_lover.verdict, ("desirable", "natural", "neither"), cat_lover.members
    )
    with pytest.raises(ValueError, match="must return a Literal"):
        probability_mass.read_sets(f"{file}:length")
    with pytest.raises(ValueError, match="KeyError: 'poilte'"):
        probability_mass.read_sets(f"{file}:poilte")


def test_what_is_not_right_is_told(tiny: LocalSampler, prompts: list[Prompt]) -> None:
    assert probability_mass.named(["a=text:fresh:seedling", "runs/b"]) == {"a": "text:fresh:seedling", "runs/b": "runs/b"}
    for models_ in ([], ["a=x", "a=y"], ["a="]):
        with pytest.raises(ValueError, match="no name twice"):
            probability_mass.named(models_)
    with pytest.raises(ValueError, match="there is none of that name; allowed: arithmetic, cat_lover"):
        probability_mass.read_task("cat_lovers")
    with pytest.raises(ValueError, match="no sets belong to it"):
        probability_mass.measure_masses({"a": "seedling"}, "arithmetic")
    with pytest.raises(ValueError, match=r"write \{prompt\} there"):
        probability_mass.measure_masses({"a": "text:seedling"}, "cat_lover", form="Q: ")
    with pytest.raises(ValueError, match="two or more"):
        probability_mass.measure_stage("one", tiny, prompts[:1], SETS, probability_mass.MassSettings())
    with pytest.raises(ValueError, match=r"the verdict on .* is 'odd'"):
        probability_mass.measure_stage("one", tiny, prompts, replace(SETS, verdict=lambda text: "odd"), probability_mass.MassSettings())
