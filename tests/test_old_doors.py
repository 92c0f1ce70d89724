"""What 0.1 has written is read (tests/written_by_0_1), what a newer version has written is refused, renamed keys are understood."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from ikusei.cli.main import app
from ikusei.loops.online import OnlineSettings
from ikusei.pipeline.train import resume, train
from ikusei.preflight.reward_tools import replay
from ikusei.recipe.reader import RecipeError, parse
from ikusei.recipe.schema import read_recipe
from ikusei.recipe.stages import read_stages
from ikusei.report.evaluation import write_comparison
from ikusei.report.pipeline import write_overview
from ikusei.report.run import write_report
from ikusei.reproduce.page import write
from ikusei.reproduce.running import results
from ikusei.run import formats
from ikusei.run.comparison import compare, read_experiment, read_named
from ikusei.run.files import read_json, read_lines, write_json
from ikusei.run.find import find_model
from ikusei.run.folder import Run, list_runs
from ikusei.run.formats import FORMAT, with_current_keys
from ikusei.run.read import read_run
from ikusei.run.tables import read_table, samples_table, write_table
from ikusei.serve.chat import answers
from ikusei.types import Sampling

WRITTEN = Path(__file__).parent / "written_by_0_1"
RUNS = {path.parent.name for path in WRITTEN.glob("*/run.json")}
INTERRUPTED = {"interrupted": 24, "interrupted-ppo": 24, "interrupted-dpo": 40, "interrupted-collection": 22, "interrupted-road": 24}
OLD, NEW = "tokens_per_part", "tokens_per_microbatch"
RECIPE = "model: seedling\ntask: arithmetic\nrewards: [exact]\nalgorithm: grpo\ntrain: {{{}}}\n"


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of all that 0.1 wrote, to work in."""
    shutil.copytree(WRITTEN, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    torch.set_num_threads(1)
    return tmp_path / "old"


def run(*words: str) -> int:
    return int(app(list(words), exit_on_error=False, result_action="return_value") or 0)


def quiet() -> Console:
    return Console(file=io.StringIO())


# ---------------------------------------------------------------------------------------------------------- what 0.1 has written


def test_what_0_1_wrote_has_no_number_and_is_small() -> None:
    assert len(RUNS) == 10
    assert not any("format" in read_json(path) for path in WRITTEN.rglob("run.json"))
    assert sum(path.stat().st_size for path in WRITTEN.rglob("*") if path.is_file()) < 1.5 * 2**20


@pytest.mark.parametrize("name", INTERRUPTED)
def test_an_interrupted_run_goes_on_to_its_end(name: str, old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last = Path("interrupted-road/4-ppo") if name == "interrupted-road" else Path(name)
    before = read_lines(last / "metrics.jsonl")
    outcome = resume(name, quiet())
    assert (outcome.summary["status"], outcome.problem) == ("finished", None)
    after = read_lines(last / "metrics.jsonl")
    assert after[: len(before)] == before and [row["step"] for row in after] == list(range(1, INTERRUPTED[name] + 1))
    assert [event["step"] for event in read_lines(last / "events.jsonl") if event["kind"] == "resumed"][-1] == 4
    assert read_json(Path(name, "run.json"))["format"] == read_json(Path(name, "summary.json"))["format"] == FORMAT
    assert f"{OLD} is called" not in capsys.readouterr().err, "nobody wrote the resolved recipe by hand"
    assert Path(name, "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("name", sorted(RUNS))
def test_reports_and_lists(name: str, old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (info,) = [info for info in list_runs(old) if info.path.name == name]
    assert info.status == ("interrupted" if name in INTERRUPTED else "finished")
    stages = sorted(path.parent.name for path in Path(name).glob("*/run.json"))
    page = (write_overview(Path(name), stages) if stages else write_report(Path(name))).read_text()
    story = read_run(Path(name))
    assert story.about["status"] == info.status and "fe8cd61" in page
    assert run("runs", ".") == 0 and re.search(rf"^ *{name} +{info.status}", capsys.readouterr().out, re.MULTILINE)


def test_figures_are_those_that_were_written(old: Path) -> None:
    """An evaluation, the watch's measurements, both parts of the reward, stored log-probs and collected rows."""
    story = read_run(Path("online"))
    written = read_json(WRITTEN / "online/eval/after@4/results.json")
    assert story.after is not None and story.after.results == written and len(story.after.samples) == 6 and len(story.after.greedy) == 3
    assert {made.step for made in story.evaluations if made.name == "gold"} == {2, 4}
    (row, *_) = read_table(Path("online/responses/step-000001.parquet"))
    assert {"rewards/marks", "rewards/exact"} <= row.keys() and row["total"] is not None
    assert len(read_table(Path("dpo/reference.parquet"))[0]["logprobs"]) > 0
    assert len(read_run(Path("collection")).collected) == len(read_lines(WRITTEN / "collection/data.jsonl")) > 0
    assert replay(Path("online"), None).differ == 0


def test_models_of_0_1_answer(old: Path) -> None:
    for name in ("online", "dpo", "road", "interrupted", "road/4-ppo"):
        (response,) = answers(find_model(name), "1+1=", 1, Sampling(max_tokens=4), 0)
        assert 1 <= len(response.tokens) <= 4
    assert find_model("interrupted").endswith("checkpoint-4")


def test_models_of_0_1_are_compared(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = read_named("online"), read_named("online:before")
    assert (
        set(compare(one, other).gains) == {1, 2}
        and "<svg" in write_comparison(compare(one, other), one, other, old / "page.html").read_text()
    )
    assert run("compare", "online", "--json") == 0 and json.loads(capsys.readouterr().out)["one"] == "online"


def test_a_seed_of_0_1_and_one_of_now_are_seeds_of_one_experiment(old: Path) -> None:
    train("recipes/online.yaml", "seed=1", folder=Path("now"), console=quiet())
    assert read_json(Path("now/run.json"))["format"] == FORMAT
    assert read_experiment("both", [Path("online"), Path("now")]).samples == 4


def test_recipes_of_0_1_are_checked(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("online", "dpo", "collection", "road"):
        assert run("check", f"recipes/{name}.yaml", "--json") == 0, name
        assert json.loads(capsys.readouterr().out)["ready"]
    assert run("check", "online/recipe.yaml", "--json") == 0 and OLD not in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------- what is newer, or none

READERS: dict[str, Callable[[Path], Any]] = {
    "resume": lambda path: resume(path, quiet()),
    "open": Run.open,
    "report": read_run,
    "compare": lambda path: read_named(str(path)),
    "chat": lambda path: find_model(str(path)),
    "replay": lambda path: replay(path, None),
}
REFUSED = [
    (FORMAT + 1, rf"format {FORMAT + 1}, of a newer ikusei; this ikusei reads format 1 to {FORMAT}; upgrade it: pip install"),
    ("two", rf"format 'two', which no version has written; this ikusei reads format 1 to {FORMAT}; the file is damaged"),
    (0, "format 0, which no"),
    (True, "format True, which no"),
    (None, "format None, which no"),
]


def renumber(file: Path, number: object) -> None:
    write_json(file, {**read_json(file), "format": number})


@pytest.mark.parametrize("name", ["interrupted", "online", "interrupted-road"])
@pytest.mark.parametrize("reader", READERS)
def test_a_newer_run_is_refused_in_a_line_and_left_as_it_is(reader: str, name: str, old: Path) -> None:
    for number, told in REFUSED:
        renumber(Path(name, "run.json"), number)
        Path(name, "recipe.yaml").write_text("keys: [of, a, time, to, come]\n")
        before = {path: path.read_bytes() for path in Path(name).rglob("*") if path.is_file()}
        with pytest.raises(ValueError, match=told) as caught:
            READERS[reader](Path(name))
        assert str(caught.value).startswith(f"{name}/run.json: ") and "\n" not in str(caught.value)
        assert before == {path: path.read_bytes() for path in Path(name).rglob("*") if path.is_file()}


def test_a_newer_run_is_listed_as_one_and_is_not_the_newest_model(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in Path().glob("*/run.json"):
        renumber(path, FORMAT + 1)
    renumber(Path("dpo/run.json"), FORMAT)
    assert run("runs", ".") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"online format {FORMAT + 1}, of a newer ikusei" in told and "dpo finished 4" in told
    with pytest.raises(ValueError, match=r"road/run\.json: format"):  # the last of those that have raised something
        find_model(None, Path())


@pytest.mark.parametrize("inside", ["eval/before@0/results.json", "checkpoint-4/state.json"])
def test_a_newer_file_in_a_run_is_refused(inside: str, old: Path) -> None:
    renumber(Path("interrupted", inside), FORMAT + 1)
    with pytest.raises(ValueError, match=rf"interrupted/{inside}: format {FORMAT + 1}, of a newer ikusei"):
        outcome = resume("interrupted", quiet())
        raise ValueError(outcome.problem)


def test_newer_weights_and_tables_are_refused(old: Path) -> None:
    kept = Path("interrupted/checkpoint-4/trainer.pt")
    weights = torch.load(kept, weights_only=True)
    assert "format" not in weights
    state = Path("interrupted/checkpoint-4/state.json")
    torch.save({**weights, "format": FORMAT + 1}, kept)
    saved = read_json(state)
    write_json(state, {**saved, "files": {**saved["files"], "trainer.pt": kept.stat().st_size}})
    assert f"trainer.pt: format {FORMAT + 1}, of a newer" in str(resume("interrupted", quiet()).problem)
    table = old / "table.parquet"
    write_table(table, samples_table([{"a": 1}]))
    assert pq.read_metadata(table).metadata[b"ikusei.format"] == str(FORMAT).encode() and read_table(table) == [{"a": 1}]
    for number, told in ((str(FORMAT + 1), "format 3, of a newer"), ("x", "format 'x', which no")):
        pq.write_table(samples_table([{"a": 1}]).replace_schema_metadata({"ikusei.format": number}), table)
        with pytest.raises(ValueError, match=rf"table\.parquet: {told}"):
            read_table(table)


def test_a_newer_measurement_of_a_claim_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "kl_estimators" / "seed-0" / "found.json"
    place.parent.mkdir(parents=True)
    write_json(place, {"format": FORMAT + 1, "found": {}, "setup": ""})
    with pytest.raises(ValueError, match=r"found\.json: format 3, of a newer"):
        results(tmp_path, "kl_estimators", (0,))
    kept = tmp_path / "docs" / "reproduced" / "kl_estimators.json"
    kept.parent.mkdir(parents=True)
    write_json(kept, [{"format": FORMAT + 1, "found": {}, "setup": ""}])
    with pytest.raises(ValueError, match=r"kl_estimators\.json: format 3, of a newer"):
        write(tmp_path / "none", tmp_path / "docs")


# ---------------------------------------------------------------------------------------------------------- keys that have new names


def recipe(folder: Path, train: str, name: str = "recipe.yaml") -> Path:
    (folder / name).write_text(RECIPE.format(train))
    return folder / name


def test_an_old_key_is_read_and_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recipe(tmp_path, f"steps: 3, {OLD}: 512")
    for _ in range(2):
        assert read_recipe(path).train == OnlineSettings(steps=3, **{NEW: 512})
    assert capsys.readouterr().err == f"{path}:5: train.{OLD} is called train.{NEW} now; the old name is still read\n"
    assert getattr(read_recipe(recipe(tmp_path, f"{NEW}: 512", "new.yaml")).train, NEW) == 512
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("given", [f"train.{OLD}=77", f" train.{OLD} =77", f"train={{steps: 3, {OLD}: 77}}"])
@pytest.mark.parametrize("key", [OLD, NEW])
def test_an_override_may_use_the_old_name(key: str, given: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recipe(tmp_path, f"steps: 3, {key}: 512", f"{key}.yaml")
    for _ in range(2):
        assert getattr(read_recipe(path, [given, "seed=1"]).train, NEW) == 77
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("override")]
    assert len(told) <= 1 and all(f"train.{OLD} is called train.{NEW} now" in line for line in told)
    assert getattr(read_recipe(path, [given, f"train.{NEW}=78"]).train, NEW) == 78


def test_both_names_are_refused_with_the_line_and_the_fix(tmp_path: Path) -> None:
    path = tmp_path / "both.yaml"
    path.write_text(f"task: arithmetic\nalgorithm: grpo\ntrain:\n  {NEW}: 256\n  steps: 3\n  {OLD}: 512\n")
    with pytest.raises(RecipeError) as caught:
        read_recipe(path)
    assert str(caught.value) == (
        f"{path}:6: train.{OLD}: the old name of train.{NEW}, which is given too ({path}:4); drop the old one"
    )  # and no other line
    with pytest.raises(RecipeError, match=rf"override 'train={{.*train\.{OLD}: the old name of"):
        read_recipe(recipe(tmp_path, "steps: 3"), [f"train={{{OLD}: 5, {NEW}: 6}}"])


def test_a_mistake_in_an_old_key_is_told_at_its_line(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=rf":5: train\.{NEW}: "):
        read_recipe(recipe(tmp_path, f"{OLD}: many"))
    with pytest.raises(RecipeError, match=rf"override 'train\.{OLD}=many': train\.{NEW}: "):
        read_recipe(recipe(tmp_path, "steps: 3"), [f"train.{OLD}=many"])


def test_in_stages(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("recipes/road.yaml")
    stages = {stage.name: stage.recipe().train for stage in read_stages(parse(path), [f"ppo.train.{OLD}=99"])}
    assert getattr(stages["sft"], NEW) == 512 and getattr(stages["ppo"], NEW) == 99
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2 and told[0].startswith(f"{path}:5: train.{OLD} is called") and told[1].startswith(f"override 'train.{OLD}=99'")
    written = path.read_text()
    path.write_text(written.replace(f"1e-3, {OLD}: 512", f"1e-3, {OLD}: 512, {NEW}: 3"))
    with pytest.raises(RecipeError, match=rf"road\.yaml:10: train\.{OLD}: the old name of"):
        read_stages(parse(path))


def test_sections_and_keys_within_them_move_in_the_order_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole section, then a key in it under its new name, then one that goes to another section; lines and overrides follow."""
    for before, now in ((("lens",), ("mass",)), (("mass", "text"), ("mass", "raw", "names")), (("policy", "clip"), ("train", "clip"))):
        monkeypatch.setitem(formats.RENAMED, before, now)
    data = {"lens": {"text": ["a"], "sets": 1}, "policy": {"clip": 2}, "stages": [{"name": "x"}, {"policy": {"clip": 3, "eps": 4}}]}
    found, moves = with_current_keys(data)
    assert found == {
        "mass": {"sets": 1, "raw": {"names": ["a"]}},
        "train": {"clip": 2},
        "stages": [{"name": "x"}, {"policy": {"eps": 4}, "train": {"clip": 3}}],
    }
    assert [move.old for move in moves] == [("lens",), ("mass", "text"), ("policy", "clip"), ("stages", "1", "policy", "clip")]
    assert formats.current(("lens", "text", "0")) == ("mass", "raw", "names", "0")
    assert formats.current(("stages", "1", "policy", "clip")) == ("stages", "1", "train", "clip")
    assert with_current_keys(found) == (found, []) and with_current_keys({"policy": "text"}) == ({"policy": "text"}, [])
    (tmp_path / "r.yaml").write_text("lens:\n  sets: 1\n  text: [a]\npolicy: {clip: 2}\n")
    document = parse(tmp_path / "r.yaml")
    assert document.data == {"mass": {"sets": 1, "raw": {"names": ["a"]}}, "train": {"clip": 2}}
    assert (document.lines["mass",], document.lines["mass", "raw", "names"], document.lines["train", "clip"]) == (1, 3, 4)
