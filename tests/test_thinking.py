"""Test-time methods that decide while an answer is written: what they are equal to, what they count, and that it can be trained on."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import ikusei
from ikusei import search
from ikusei.backends.local import LocalPolicy
from ikusei.cli.main import main
from ikusei.eval_metrics.choosing import answered, choose
from ikusei.evaluation.scaling import ScaleSettings
from ikusei.forest import plant
from ikusei.models.load import load_model, load_tokenizer
from ikusei.samplers.continuation import Writer
from ikusei.samplers.local import LocalSampler
from ikusei.samplers.partial import Partial
from ikusei.search.beam import Beam
from ikusei.search.best_of_n import BestOfN
from ikusei.search.budget import Budget
from ikusei.search.method import Guide, Method, Result, by_function, squashed
from ikusei.search.methods import build, help_text, read_method, registry
from ikusei.search.repeated import RepeatedSampling, VoteInRounds, round_seed
from ikusei.search.revision import AGAIN, Revision, further_turn
from ikusei.search.trees import Candidate
from ikusei.search.vote import Vote
from ikusei.text.chat import render
from ikusei.text.conversation import decode, rendered
from ikusei.types import Example, Group, Prompt, Response, Sampling, Score

QUESTIONS = ("123+456=", "789+345=", "667+128=", "905+96=", "123+456=")  # one is asked twice
GUIDE: Guide = by_function(lambda prompt, text: sum(map(ord, text)) % 97 / 97)  # says nothing of what is right, and differs everywhere
STEPPED = Beam(8, 2, stop=(" ",), step_tokens=9)
METHODS: dict[str, Method] = {
    "repeated": RepeatedSampling(4),
    "rounds": VoteInRounds(9, 4, 0.2),
    "beam": STEPPED,
    "dvts": replace(STEPPED, diverse=True, aggregate="prod"),
    "revision": Revision(3),
    "truncate": Budget(10),
    "extend": Budget(extensions=2),
}


@pytest.fixture(scope="module")
def policy() -> LocalPolicy:
    torch.set_num_threads(1)
    return LocalPolicy(load_model("seedling"), load_tokenizer("seedling"))


@pytest.fixture(scope="module")
def writer(policy: LocalPolicy) -> Writer:
    return Writer(policy.snapshot(), Sampling(max_tokens=48), 3)


@pytest.fixture(scope="module")
def prompts(policy: LocalPolicy) -> list[Prompt]:
    return [render(policy.tokenizer, Example(question)) for question in QUESTIONS]


@pytest.fixture(scope="module")
def sums(policy: LocalPolicy) -> list[Prompt]:
    """Enough of them that some are answered with a thought."""
    return [render(policy.tokenizer, Example(f"{100 + 37 * i}+{913 - 41 * i}=")) for i in range(12)]


def run(method: Method, writer: Writer, prompts: Sequence[Prompt]) -> list[Result]:
    return method.run(writer, prompts, GUIDE if isinstance(method, Beam) else None)


def plain(writer: Writer, prompts: Sequence[Prompt], num: int) -> list[tuple[Response, ...]]:
    """Straight from the sampler; no prompt twice."""
    found = {group.prompt.id: group for group in writer.sampler.sample(prompts, num, writer.sampling, writer.seed)}
    return [tuple(map(bare, found[prompt.id].responses)) for prompt in prompts]


def bare(response: Response) -> Response:
    """To be compared: log-probs are rounded otherwise in another batch, and a guide's word is no part of the answer."""
    return replace(response, logprobs=None, score=None)


WRITTEN = {  # of the first two questions: tokens spent, and the answer
    "repeated": [(23, "6148"), (28, "<think></think>1199")],
    "rounds": [(70, "6148"), (87, "<think></think>1199")],
    "beam": [(100, "<think></think>893"), (56, "<think></think>8475")],
    "dvts": [(83, "<think></think>796"), (102, "<think></think>398")],
    "revision": [(19, "<think>6</think>13"), (61, "<think>3*<think>6</think>6")],
    "truncate": [(5, "6148"), (7, "<think></think>1199")],
    "extend": [(5, "6148"), (31, "<think>Wait9 8+4=12 7+3+1=11Wait+1=10</think>1012")],
}


@pytest.mark.parametrize("name", METHODS)
def test_what_each_method_writes_with_seed_3(name: str, writer: Writer, prompts: list[Prompt]) -> None:
    """Written down on 2026-11-29: a method that is laid out anew gives the same."""
    assert [(each.tokens, each.chosen.text) for each in run(METHODS[name], writer, prompts[:2])] == WRITTEN[name]


@pytest.mark.parametrize("name", METHODS)
def test_what_is_written_has_the_policys_log_probs(name: str, policy: LocalPolicy, writer: Writer, prompts: list[Prompt]) -> None:
    """Each answer hangs on the prompt as it was asked; a forest of them gives each token that was written its log-prob."""
    found = run(METHODS[name], writer, prompts)
    groups = [Group(prompt, each.responses) for prompt, each in zip(prompts, found, strict=True)]
    responses = [response for group in groups for response in group.responses]
    told = [p for r in responses for p, written in zip(r.logprobs or (), r.mask, strict=True) if written]
    logp_M = policy.forward(plant(groups)).logp_M
    assert logp_M is not None and logp_M.tolist() == pytest.approx(told, abs=1e-3)
    for response in responses:
        assert len(response.tokens) == len(response.mask) == len(response.logprobs or ()) <= writer.context
        assert all(p == 0 for p, written in zip(response.logprobs or (), response.mask, strict=True) if not written)
        assert response.stop and response.version == policy.version
    assert all(each.chosen in each.responses for each in found)


@pytest.mark.parametrize("name", METHODS)
def test_the_seed_decides_and_not_the_slots(name: str, policy: LocalPolicy, writer: Writer, prompts: list[Prompt]) -> None:
    few = replace(writer, sampler=LocalSampler(policy.causal, policy.tokenizer, num_slots=3))
    one, other, elsewhere = (run(METHODS[name], each, prompts) for each in (writer, few, replace(writer, seed=4)))
    assert [told(each) for each in one] == [told(each) for each in other]
    assert [told(each) for each in one] != [told(each) for each in elsewhere]
    assert told(one[0]) != told(one[4]), "the same question again is answered anew"


def told(found: Result) -> tuple[int, list[tuple[int, ...]]]:
    return found.tokens, [response.tokens for response in found.responses]


@pytest.mark.parametrize("name", ["repeated", "rounds", "revision"])
def test_what_is_kept_whole_is_what_was_spent(name: str, writer: Writer, prompts: list[Prompt]) -> None:
    for each in run(METHODS[name], writer, prompts):
        every = each.responses[-1:] if name == "revision" else each.responses
        assert each.tokens == sum(sum(response.mask) for response in every)


def test_a_search_spends_every_branch_and_a_budget_what_it_drops(writer: Writer, prompts: list[Prompt]) -> None:
    for found in run(STEPPED, writer, prompts):
        assert found.tokens > max(len(response.tokens) for response in found.responses)
        pieces = {response.tokens[: i + 1] for response in found.responses for i in range(len(response.tokens))}
        assert found.tokens >= len(pieces), "what two answers share was written once"
    dropped = [each.tokens - sum(each.chosen.mask) for each in run(Budget(extensions=2), writer, prompts)]
    assert set(dropped) <= {0, 1, 2} and max(dropped) == 2, "</think> is one token here"


def test_of_one_and_with_a_step_that_is_the_whole_a_search_is_a_sample(writer: Writer, prompts: list[Prompt]) -> None:
    samples = [row[0] for row in plain(writer, prompts[:4], 1)]
    for method in (Beam(1, 1, stop=()), RepeatedSampling(1), Revision(1), Budget(), VoteInRounds(1)):
        assert [bare(each.chosen) for each in run(method, writer, prompts[:4])] == samples


def test_with_width_1_a_search_is_best_of_n(writer: Writer, prompts: list[Prompt]) -> None:
    [found] = Beam(4, 1).run(writer, prompts[:1], GUIDE)
    [drawn] = RepeatedSampling(4, BestOfN()).run(writer, prompts[:1], GUIDE)
    assert found.chosen.tokens == drawn.chosen.tokens and found.tokens == drawn.tokens


def test_in_steps_without_a_choice_the_answers_are_spread_as_samples_are(writer: Writer, prompts: list[Prompt]) -> None:
    """Of 200 answers in steps of five tokens as many are right as of 200 plain ones, to three standard errors."""
    [found] = Beam(200, 1, stop=(), step_tokens=5).run(writer, prompts[:1], GUIDE)
    right = [sum(answered(r.text) == "579" for r in row) / 200 for row in (found.responses, plain(writer, prompts[:1], 200)[0])]
    thought = [sum(len(r.tokens) for r in row) / 200 for row in (found.responses, plain(writer, prompts[:1], 200)[0])]
    assert abs(right[0] - right[1]) < 3 * (2 * 0.25 / 200) ** 0.5 and 0.05 < right[0] < 0.95
    assert abs(thought[0] - thought[1]) < 3


def test_the_guide_is_followed(writer: Writer, prompts: list[Prompt]) -> None:
    """Towards a thought, and away from one; the value of an answer is the aggregate of its steps."""
    thinks = by_function(lambda prompt, text: float("<think></think>" not in text))
    lazy = by_function(lambda prompt, text: float("<think></think>" in text))
    wide = replace(STEPPED, n=24)
    assert all("<think></think>" not in each.chosen.text for each in wide.run(writer, prompts, thinks))
    assert all("<think></think>" in each.chosen.text for each in wide.run(writer, prompts, lazy))
    candidate = Candidate(Partial(prompts[0]), (0.5, 0.2, 0.4))
    values = [replace(STEPPED, aggregate=how)._value(candidate) for how in ("last", "min", "prod")]
    assert values == pytest.approx([0.4, 0.2, 0.04])
    with pytest.raises(ValueError, match=r"a step's score of -1; allowed for a product"):
        replace(STEPPED, aggregate="prod")._value(replace(candidate, scores=(-1.0, 2.0)))
    with pytest.raises(ValueError, match="no guide"):
        STEPPED.run(writer, prompts)
    with pytest.raises(ValueError, match="n a multiple of width"):
        Beam(6, 4)


def test_a_beam_keeps_the_best_of_all_and_trees_their_own_best(writer: Writer, sums: list[Prompt]) -> None:
    """Seen from the guide's side: what it is asked second goes on from what it scored highest first, over all or tree by tree."""
    for diverse in (False, True):
        calls: list[list[Group]] = []
        guide: Guide = lambda groups, calls=calls: [calls.append(list(groups)), GUIDE(groups)][1]  # noqa: E731
        Beam(8, 2, diverse, stop=(), step_tokens=5).run(writer, sums[:1], guide)
        assert [len(group.responses) for group in calls[0]] == ([2] * 4 if diverse else [8])
        kept = [{response.tokens[:5] for response in group.responses} for group in calls[1]]
        best = [sorted(group.responses, key=lambda r: -(r.total or 0))[: len(group.responses) // 2] for group in GUIDE(calls[0])]
        left = [{r.tokens for r in row if r.stop is None} for row in best]
        assert kept == [tokens for tokens in left if tokens] and sum(map(len, kept)) > 1


def test_a_budget_beyond_every_thought_changes_nothing(writer: Writer, sums: list[Prompt]) -> None:
    samples = [row[0] for row in plain(writer, sums, 1)]
    assert [bare(each.chosen) for each in Budget(budget=48).run(writer, sums)] == samples
    [end] = writer.tokenizer.encode("</think>", add_special_tokens=False)
    longest = max(response.tokens.index(end) for response in samples if end in response.tokens) + 1
    found = [each.chosen for each in Budget(budget=longest).run(writer, sums)]
    assert longest > 15 and [response.tokens[:longest] for response in found] == [response.tokens[:longest] for response in samples]


def test_a_thought_is_truncated_at_the_budget_and_extended_by_a_word(writer: Writer, sums: list[Prompt]) -> None:
    samples = [row[0] for row in plain(writer, sums, 1)]
    over = ["</think>" not in writer.truncate(response, 6).text and "<think>" in response.text for response in samples]
    assert set(over) == {True, False}
    for was, long, each in zip(samples, over, Budget(budget=6).run(writer, sums), strict=True):
        now = each.chosen
        if long:
            assert now.tokens[:6] == was.tokens[:6] and now.mask[:6] == (True,) * 6
            assert now.mask.count(False) == 1 and now.mask[6] is False
            assert now.text.startswith(writer.truncate(was, 6).text + "</think>") and each.tokens == len(now.tokens) - 1
        else:
            assert now.text.count("</think>") <= 1 and all(now.mask)
    for each in Budget(extensions=2, word="Wait").run(writer, sums):
        waits = each.chosen.text.count("Wait")
        assert each.chosen.mask.count(False) == 4 * waits and each.chosen.text.count("</think>") <= 1
        assert waits == 2 or "</think>" not in each.chosen.text, "fewer only where no thought came to its end"
    assert all("Wait" not in each.chosen.text for each in Budget(5, extensions=2).run(writer, sums)), "beyond the budget"


def test_given_text_leaves_room_for_a_token_or_is_not_given(writer: Writer, prompts: list[Prompt]) -> None:
    """Where it would take the last token of the room the answer ends as it was."""
    begun = Partial(prompts[0], Response((5, 6), (True, True), "", (-1.0, -2.0)))
    size = len(writer.insert(begun, "Wait, 12").response.tokens)
    assert size > 4
    for room, tokens, stop in ((size, 2, "length"), (size + 1, size, None)):
        found = replace(writer, sampling=Sampling(max_tokens=room)).insert(begun, "Wait, 12").response
        assert (len(found.tokens), found.stop) == (tokens, stop)
        assert found.mask == (True, True, *(False,) * (tokens - 2)) and found.logprobs == (-1.0, -2.0, *(0.0,) * (tokens - 2))


def test_no_room_is_told_and_never_overrun(writer: Writer, prompts: list[Prompt]) -> None:
    model = load_model("seedling")
    model.config.max_position_embeddings = len(prompts[0].tokens) + 12
    small = replace(writer, sampler=LocalPolicy(model, writer.tokenizer).snapshot())
    for method in METHODS.values():
        for found in run(method, small, prompts[:2]):
            assert all(len(response.tokens) <= 12 and response.stop for response in found.responses)
    with pytest.raises(ValueError, match="the model's context holds"):
        long = replace(prompts[0], tokens=prompts[0].tokens * 80)
        RepeatedSampling(2).run(writer, [long])


def test_a_stop_string_of_the_sampling_ends_an_answer_in_steps_too(writer: Writer, prompts: list[Prompt]) -> None:
    short = replace(writer, sampling=replace(writer.sampling, stop=("</think>",)))
    for found in STEPPED.run(short, prompts, GUIDE):
        assert all(response.text.endswith("</think>") for response in found.responses if response.stop == "stop")
        assert {response.stop for response in found.responses} <= {"stop", "length", "eos"}
        assert "stop" in {response.stop for response in found.responses}


def test_a_revision_is_the_conversation_that_the_template_writes(writer: Writer, prompts: list[Prompt]) -> None:
    [found] = Revision(3).run(writer, prompts[:1])
    first, second, third = found.responses
    assert found.chosen is third and third.tokens[: len(second.tokens)] == second.tokens
    said = [("user", QUESTIONS[0]), ("assistant", first.text), ("user", AGAIN), ("assistant", second.text)]
    whole = rendered(writer.tokenizer, [{"role": role, "content": text} for role, text in said], answer_next=False)
    assert first.stop == second.stop == "eos", "else the template would end them"
    assert decode(writer.tokenizer, prompts[0].tokens + second.tokens) == whole
    assert second.text not in first.text and decode(writer.tokenizer, second.tokens).endswith(second.text + "<|end|>")
    assert second.mask.count(False) == len(further_turn(writer.tokenizer, AGAIN)[0]) - 1, "the first answer's end is its own"
    [best] = Revision(3, chooser=BestOfN()).run(writer, prompts[:1], GUIDE)
    assert best.chosen.total == max(response.total or 0 for response in best.responses)


def test_rounds_agree_with_the_whole_vote(writer: Writer, sums: list[Prompt]) -> None:
    """With no error the answer is that of all answers, fewer of which are drawn; with one, fewer still."""
    exact, loose = VoteInRounds(8, 2, 0.0), VoteInRounds(8, 2, 0.3)
    asked, writer = sums[:8], replace(writer, sampling=replace(writer.sampling, temperature=0.4))
    rounds = [plain(replace(writer, seed=round_seed(writer.seed, number)), asked, 2) for number in range(4)]
    whole = [[response for each in rounds for response in each[p]] for p in range(len(asked))]
    found = exact.run(writer, asked)
    assert [bare(each.chosen) for each in found] == [choose(Vote(), row) for row in whole]
    assert all([*map(bare, each.responses)] == row[: len(each.responses)] for each, row in zip(found, whole, strict=True))
    drawn = [sum(len(each.responses) for each in method.run(writer, asked)) for method in (exact, loose)]
    assert drawn[1] < drawn[0] < 64
    assert rounds[0] == plain(writer, asked, 2), "the first round is what is drawn without rounds"


def test_a_method_of_the_registry_is_known_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    """Each is built for N of 1 or more, and is in the help texts and in what an error allows."""
    helps = []
    for command in ("chat", "sample", "scale"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        helps.append(" ".join(capsys.readouterr().out.split()))
    for name, spec in registry().items():
        assert all(build(spec, n) is not None for n in (1, 2, spec.least))
        with pytest.raises(ValueError, match=rf"NAME one of .*\b{name}\b"):
            read_method("nonsense:4x")
        assert all(f"{name}:" in text for text in helps)
        assert ("needs a reward" in refused(name)) == ("guide" in spec.needs)


LONGEST = """
from ikusei.search.method import MethodSpec

class Longest:
    def values(self, responses):
        return [len(response.text) for response in responses]

METHODS = (MethodSpec("longest", "N answers, of which the longest counts", Longest()),)
"""


def test_a_new_method_is_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: Writer, prompts: list[Prompt], request: pytest.FixtureRequest
) -> None:
    (tmp_path / "longest.py").write_text(LONGEST)
    monkeypatch.setattr(search, "__path__", [*search.__path__, str(tmp_path)])
    registry.cache_clear()
    request.addfinalizer(registry.cache_clear)
    request.addfinalizer(lambda: sys.modules.pop("ikusei.search.longest", None))
    method, _ = read_method("longest:4x")
    for each in run(method, writer, prompts):
        assert each.chosen.text == max((response.text for response in each.responses), key=len)
    assert ScaleSettings(methods=("longest",)).methods == ("longest",) and "longest: N answers, of which" in help_text(guided=False)


def refused(name: str) -> str:
    try:
        read_method(f"{name}:4x")
    except ValueError as error:
        return str(error)
    return ""


def test_squashed_keeps_the_order_and_what_has_failed() -> None:
    groups = [Group(Prompt("a", (1,), "a"), tuple(Response((1,), (True,), "", score=Score(total)) for total in (-2.0, None, 3.0)))]
    totals = [response.total for response in squashed(list)(groups)[0].responses]
    assert totals == [pytest.approx(0.1192029), None, pytest.approx(0.9525741)]


def test_from_python_and_by_name(writer: Writer, prompts: list[Prompt]) -> None:
    found = ikusei.answer("seedling", QUESTIONS[0], think="vote", n=4, sampling=writer.sampling, seed=3)
    [same] = RepeatedSampling(4).run(writer, prompts[:1])
    assert bare(found.chosen) == bare(same.chosen) and found.tokens == same.tokens
    led = ikusei.answer("seedling", QUESTIONS[0], Beam(4, 2, stop=(" ",)), reward=lambda prompt, text: -len(text), sampling=writer.sampling)
    assert led.chosen.total == max(response.total or -99 for response in led.responses)
    assert read_method("4x") == (RepeatedSampling(4), None) and read_method("budget:3x") == (Budget(extensions=2), None)
    assert read_method("extend:3x")[0] == read_method("stretch:3x")[0] == read_method("budget:4x")[0] == Budget(extensions=3)
    assert read_method("truncate:64x")[0] == read_method("cut:64x")[0] == Budget(64) and read_method("budget:1x")[0] == Budget()
    assert ikusei.Drawn is ikusei.RepeatedSampling and "Drawn" in ikusei.__all__
    assert read_method("dvts:16x:runs/a:b") == (Beam(16, 4, diverse=True), "runs/a:b")
    for words, problem in {"vot:4x": "got 'vot' with n=4", "nonsense": "got 'nonsense'; allowed: Nx", "beam:8x": "needs a reward"}.items():
        with pytest.raises(ValueError, match=problem):
            read_method(words)


def test_a_conversation_that_thinks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("123+456=\n\n"))
    with pytest.raises(SystemExit) as ended:
        main(["chat", "seedling", "--think", "4x", "--max-tokens", "32"])
    assert ended.value.code == 0 and re.search(r"[1-4] of 4 agree · \d+ tokens", capsys.readouterr().out)
    with pytest.raises(SystemExit):
        main(["sample", "1+1=", "--model", "seedling", "--think", "2x", "--json", "--max-tokens", "8"])
    [row] = json.loads(capsys.readouterr().out)
    assert row["chosen_from"] == 2 and 2 <= row["tokens"] <= 16
    with pytest.raises(SystemExit) as refused:
        main(["sample", "1+1=", "--model", "seedling", "--think", "2x", "--num", "2"])
    assert refused.value.code == 2
