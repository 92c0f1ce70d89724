"""Law 8: every response asked for ends in exactly one state, and the counts add up, in the tables as in the metrics."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import worlds

from ikusei.guard.outcomes import FAILURES
from ikusei.guard.workers import RewardSpec, RewardWorkers
from ikusei.types import Group, Prompt, Sampling

STEPS, PROMPTS, ANSWERS = 6, 3, 4
ASKED = (f"train.steps={STEPS}", f"train.prompts_per_step={PROMPTS}", f"train.num_responses={ANSWERS}", "eval.num_samples=5")
Row = dict[str, Any]


@pytest.fixture(scope="module", params=["refill", "no refill"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conservation")
    more = ("train.refill_rounds=2", "algorithm.kl_coef=0") if request.param == "refill" else ("train.refill_rounds=0",)
    outcome = tiny_runs.run_here(tiny_runs.write_recipe(folder), folder / "run", *ASKED, *more)
    assert outcome.exit_code == 0
    return outcome.folder


@pytest.fixture(scope="module")
def steps(run: Path) -> list[tuple[Row, list[Row]]]:
    """(metrics, responses) of each step."""
    return list(zip(tiny_runs.metrics(run), tiny_runs.responses(run).values(), strict=True))


def test_as_many_as_were_asked_for(steps: list[tuple[Row, list[Row]]], run: Path) -> None:
    assert len(steps) == STEPS
    rounds = 0 if "refill_rounds: 0" in (run / "recipe.yaml").read_text() else 2
    assert any(len(rows) > PROMPTS * ANSWERS for _, rows in steps) == (rounds > 0), "nothing was refilled, so nothing is seen of it"
    for metrics, rows in steps:
        asked, beyond = divmod(len(rows), ANSWERS)
        assert beyond == 0
        groups = [rows[i : i + ANSWERS] for i in range(0, len(rows), ANSWERS)]
        assert asked == expected(groups, rounds)
        assert all(len({row["prompt_id"] for row in group}) == 1 for group in groups)
        assert len({row["seed"] for row in rows}) == len(rows)
        kept = [group[0]["kept"] for group in groups]
        assert metrics["groups/kept"] == pytest.approx(sum(kept) / len(groups))
        assert all(row["kept"] == group[0]["kept"] for group in groups for row in group)


def expected(groups: list[list[Row]], rounds: int) -> int:
    """How many groups these should be: after each round as many more as still teach too little."""
    asked = PROMPTS
    for _ in range(rounds):
        asked += PROMPTS - sum(group[0]["kept"] for group in groups[:asked])
    return asked


def test_each_reward_ends_in_one_state(steps: list[tuple[Row, list[Row]]]) -> None:
    """A value where it is ok and only there; the failures are those of the metrics, by name and kind."""
    seen: Counter[str] = Counter()
    for metrics, rows in steps:
        for name in ("exact", "marks"):
            statuses = Counter(row.get(f"rewards/{name}/status") for row in rows)
            seen.update({f"{name} {status}": number for status, number in statuses.items()})
            assert sum(statuses.values()) == len(rows)
            assert set(statuses) <= {"ok", "not_applicable", *FAILURES}
            for status, label in FAILURES.items():
                assert metrics.get(f"{label}/{name}", 0.0) == statuses[status]
            for row in rows:
                assert (row[f"rewards/{name}"] is not None) == (row[f"rewards/{name}/status"] == "ok")
    assert min(seen["marks ok"], seen["marks error"], seen["marks not_finite"], seen["exact ok"]) > 0


def test_totals_and_advantages(steps: list[tuple[Row, list[Row]]]) -> None:
    """No total where a reward that counts failed, never a 0 instead; an advantage for each answer that was trained on, and only those."""
    for metrics, rows in steps:
        for row in rows:
            assert (row["total"] is None) == (row["rewards/marks/status"] in FAILURES)
            assert (row["advantage"] is not None) == (row["kept"] and row["total"] is not None)
        totals = [row["total"] for row in rows if row["total"] is not None]
        assert metrics["reward"] == pytest.approx(sum(totals) / len(totals))
        for i in range(0, len(rows), ANSWERS):
            advantages = [row["advantage"] for row in rows[i : i + ANSWERS] if row["advantage"] is not None]
            assert sum(advantages) == pytest.approx(0, abs=1e-5)


def test_tokens(steps: list[tuple[Row, list[Row]]]) -> None:
    """Cumulated: what was written, and what was trained on. A response of a kept group whose reward failed is not trained on."""
    sampled = trained = 0
    for metrics, rows in steps:
        sampled += sum(row["num_tokens"] for row in rows)
        trained += sum(row["num_tokens"] for row in rows if row["advantage"] is not None)
        assert metrics["tokens_sampled"] == sampled
        assert metrics["num_tokens"] == trained
        assert metrics["completions/mean_length"] == pytest.approx(sum(row["num_tokens"] for row in rows) / len(rows))
        cut = sum(row["stop"] == "length" for row in rows) / len(rows)
        assert metrics["completions/clipped_ratio"] == pytest.approx(cut)
        assert {row["stop"] for row in rows} <= {"eos", "stop", "length"}


def test_evaluations(run: Path) -> None:
    for name, (results, rows) in tiny_runs.evaluations(run).items():
        gold = name.startswith("gold")
        samples, greedy = ([row for row in rows if row["greedy"] is which] for which in (False, True))
        assert len(samples) == results["num_prompts"] * results["num_samples"] == 3 * (2 if gold else 5)
        assert [row["prompt_id"] for row in greedy] == ([] if gold else list(dict.fromkeys(row["prompt_id"] for row in samples)))
        assert results["tokens"] == sum(row["num_tokens"] for row in rows)
        assert results["failed"] == sum(row["total"] is None for row in samples) / len(samples)


@pytest.mark.parametrize("name", ["qwen3", "lfm2 convolution"])
@pytest.mark.parametrize("slots", [1, 4, 64])
def test_the_sampler_loses_and_doubles_nothing(name: str, slots: int) -> None:
    """Two rows may ask the same."""
    prompts = [Prompt(f"p{i % 4}", tuple(range(5, 7 + i % 4)), f"p{i % 4}") for i in range(6)]
    sampler = worlds.make_policy(name).snapshot()
    sampler.num_slots = slots
    groups = list(sampler.sample(prompts, 3, Sampling(max_tokens=8, stop_ids=tuple(range(3, 20))), seed=0))
    assert Counter(group.prompt.id for group in groups) == Counter(prompt.id for prompt in prompts)
    assert all(len(group.responses) == 3 for group in groups)
    assert all(r.stop and r.tokens and len(r.mask) == len(r.tokens) == len(r.logprobs or ()) for g in groups for r in g.responses)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_the_workers_lose_nothing(num_workers: int, tmp_path: Path) -> None:
    (tmp_path / "marks.py").write_text(tiny_runs.REWARD)
    groups: list[Group] = worlds.make_groups(worlds.Shape(12, (1, 3), (2, 5), (1, 4)))
    with RewardWorkers([RewardSpec("marks", f"{tmp_path}/marks.py:marks")], num_workers=num_workers) as workers:
        scored = workers.score(groups)
    assert [group.prompt for group in scored] == [group.prompt for group in groups]
    assert [[r.text for r in group.responses] for group in scored] == [[r.text for r in group.responses] for group in groups]
    for response in (response for group in scored for response in group.responses):
        first = ord(response.text[0])
        expected = "error" if first % 5 == 0 else "not_finite" if first % 11 == 1 else "ok"
        assert response.score is not None
        assert response.score.parts["marks"].status == expected
