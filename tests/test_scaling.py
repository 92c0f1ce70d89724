"""Accuracy over tokens: no way beats pass@n, nothing is guided by the judge, and the frontier is what no cheaper point reaches."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ikusei.cli.main import main
from ikusei.evaluation import scaling
from ikusei.evaluation.scaling import on_frontier
from ikusei.intervals import doublings, tries
from ikusei.report.frontier import Point
from ikusei.search.methods import registry

ALL = registry()
POOLED = {name for name, spec in ALL.items() if spec.chooser is not None}
GUIDED = {name for name, spec in ALL.items() if "guide" in spec.needs}
RECIPE = str(Path(__file__).parents[1] / "recipes" / "quickstart.yaml")
SMALL = ("eval.num_prompts=3", "sampling.max_tokens=24")


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["scale", RECIPE, *words])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_every_method_and_its_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Guided by the form of a thought, judged by the answer."""
    monkeypatch.setattr(scaling, "REPEATS", 2)
    words = (*SMALL, "rewards=[think_format, {path: exact, gold: true}]", "--max", "8", "--step", " ", "--json")
    assert run(*words, "--methods", ",".join(ALL), "--out", str(tmp_path / "a.svg")) == 0
    found = json.loads(capsys.readouterr().out)
    points = [Point(**row) for row in found["points"]]
    bound = {row["n"]: row for row in found["bound"]}
    assert found["facts"]["judge"] == "exact" and found["facts"]["guide"] == "think_format" and found["facts"]["num_prompts"] == 3
    assert {point.method for point in points} == {"one", *ALL}
    assert 0 < found["facts"]["mean_length"] <= 24, "of one answer, and not of all eight"
    assert points[0].value == bound[1]["value"] and points[0].tokens == pytest.approx(found["facts"]["mean_length"])
    for point in points:
        assert 0 <= point.low <= point.value <= point.high <= 1 and point.tokens > 0
        if point.method in POOLED:
            assert point.value <= bound[point.n]["value"] + 1e-9 and point.tokens == pytest.approx(bound[point.n]["tokens"])
    rounds = [point for point in points if point.method == "rounds"]
    assert all(point.tokens < 1.5 * bound[point.n]["tokens"] for point in rounds) and [point.n for point in rounds] == [8]
    drawing = ElementTree.parse(tmp_path / "a.svg").getroot()
    written = {text.text for text in drawing.iter("{http://www.w3.org/2000/svg}text")}
    assert {"pass@n", "one answer", "frontier", "dvts", "weighted vote", "mbr"} <= written


def test_nothing_is_guided_by_the_judge(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*SMALL, "--max", "2", "--ways", "vote,beam") == 2
    assert "beam need a guide that is not the judge; give --proxy" in capsys.readouterr().err
    assert run(*SMALL, "--max", "2", "--methods", "vote,bim") == 2
    assert run(*SMALL, "rewards=[exact, length]", "--max", "2", "--proxy", "seedling") == 2
    assert "several rewards that may judge: exact, length" in capsys.readouterr().err
    assert run(*SMALL, "--max", "2", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert not {row["method"] for row in found["points"]} & GUIDED and found["facts"]["guide"] is None


def test_the_frontier_by_hand() -> None:
    """At 4 tokens the better of two; at 8 one that gains nothing; at 2 the first."""
    told = [("a", 2.0, 0.4), ("b", 4.0, 0.5), ("c", 4.0, 0.7), ("d", 8.0, 0.7), ("e", 16.0, 0.9), ("f", 1.0, 0.1)]
    points = on_frontier([Point(method, 1, tokens, value, 0.0, 1.0) for method, tokens, value in told])
    assert [point.method for point in points if point.frontier] == ["a", "c", "e", "f"]
    assert doublings(1) == [1] and doublings(9) == [1, 2, 4, 8] and doublings(64)[-1] == 64
    assert tries(9) == [1, 2, 4, 8, 9] and tries(8) == [1, 2, 4, 8] and tries(1) == [1] and tries(0) == []
