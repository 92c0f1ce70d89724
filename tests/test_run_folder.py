"""The run folder: what is written where, and that neither a kill nor a full disk loses what stood there before."""

from __future__ import annotations

import json
import math
import multiprocessing
import random
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML
from safetensors.numpy import save_file

from ikusei.intervals import Interval
from ikusei.run.files import read_json, read_lines
from ikusei.run.folder import Run, is_wall_clock, list_runs
from ikusei.types import Group, Prompt, Response, RewardResult, Score

RESOLVED = {"name": "tiny", "seed": 3, "train": {"lr": 1e-6, "steps": 4}, "prompt": "ねこはすきですか？", "stop": [], "note": None}
SOURCE = "name: tiny  # as written\n"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "runs", "tiny", SOURCE, RESOLVED, {"threads": 2, "layout": "forest"})


def weights(step: int, size: int = 200_000) -> Callable[[Path], None]:
    """Writes a model whose bytes say which step it is of."""

    def write(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(step.to_bytes(4, "big") * (size // 4))
        (folder / "tokenizer").mkdir()
        (folder / "tokenizer" / "vocab.txt").write_text(str(step))

    return write


def assert_holds(folder: Path, step: int, size: int = 200_000) -> None:
    assert (folder / "model.safetensors").read_bytes() == step.to_bytes(4, "big") * (size // 4)
    assert (folder / "tokenizer" / "vocab.txt").read_text() == str(step)


# -- making and opening


def test_create_writes_what_is_needed_to_make_it_again(run: Run) -> None:
    about = read_json(run.path / "run.json")
    assert about["status"] == "running" and about["seed"] == 3 and about["facts"] == {"threads": 2, "layout": "forest"} == run.facts
    assert about["versions"]["torch"] and about["versions"]["python"]
    assert YAML(typ="safe").load(run.path / "recipe.yaml") == RESOLVED
    assert (run.path / "recipe.source.yaml").read_text() == SOURCE
    assert (run.path / "logs").is_dir()
    assert not list(run.path.rglob(".*.tmp"))


def test_a_run_is_never_overwritten(tmp_path: Path) -> None:
    made = [Run.create(tmp_path, "my recipe/2", SOURCE, RESOLVED, {}).path for _ in range(5)]
    assert len(set(made)) == 5 and all(path.parent == tmp_path and path.name[16:].startswith("my-recipe-2") for path in made)
    with pytest.raises(ValueError, match=r"exists, and a run is never overwritten.*--resume"):
        Run.create(tmp_path, "x", SOURCE, RESOLVED, {}, path=made[0])
    chosen = Run.create(tmp_path, "x", SOURCE, RESOLVED, {}, path=tmp_path / "chosen" / "here")
    assert chosen.path == tmp_path / "chosen" / "here" and (chosen.path / "run.json").exists()


def test_open_names_the_runs_that_exist(run: Run) -> None:
    with pytest.raises(ValueError, match=f"no run there; runs in .*: {run.path.name}"):
        Run.open(run.path.with_name("quickstat"))
    with pytest.raises(ValueError, match="none"):
        Run.open(run.path / "elsewhere" / "no")


def test_a_finished_run_cannot_be_resumed_but_others_can(run: Run) -> None:
    for status in ("failed", "interrupted"):
        run.finish(summary(status))
        assert read_json(run.path / "run.json")["status"] == status
        assert Run.open(run.path).facts == {"threads": 2, "layout": "forest"}
        assert read_json(run.path / "run.json")["status"] == "running"
    run.finish(summary("finished"))
    with pytest.raises(ValueError, match="has finished"):
        Run.open(run.path)


def test_list_runs(run: Run) -> None:
    run.record(1, {"reward": 0.5})
    run.record(2, {"reward": 0.6})
    (run.path.parent / "not-a-run").mkdir()
    run.finish(summary("finished"))
    (info,) = list_runs(run.path.parent)
    assert (info.path, info.name, info.status, info.step) == (run.path, "tiny", "finished", 2)
    assert info.summary is not None and info.summary["tokens_sampled"] == 90
    assert list_runs(run.path / "nowhere") == []


# -- steps


def groups() -> list[Group]:
    ok, late = (
        Score(1.5, {"exact": RewardResult(1.0, "ok"), "length": RewardResult(0.5, "ok")}),
        Score(None, {"exact": RewardResult(None, "timeout", 2.0, "2 s")}),
    )
    first = Response((5, 6, 7), (True, False, True), "a\u2028b", (-0.5, -9.0, -0.25), "eos", version=4, seed=2**64 - 1, score=ok)
    second = Response((5,), (True,), "ねこ", None, "length", score=late)
    third = Response((8, 9), (True, True), "", (-1.0, -1.0), "stop", version=4, seed=1)
    return [Group(Prompt("p1", (1,), "1+1=?", {"answer": "2"}), (first, second)), Group(Prompt("p2", (2,), "<b>"), (third,))]


def test_record_writes_metrics_and_every_response(run: Run) -> None:
    run.record(50, {"reward": 0.25, "time/step": 1.5}, groups(), kept=[True, False], advantages={(0, 1): 0.75, (1, 0): -0.25})
    (row,) = read_lines(run.path / "metrics.jsonl")
    assert row == {"step": 50, "seconds": row["seconds"], "reward": 0.25, "time/step": 1.5} and row["seconds"] >= 0
    assert {key for key in row if is_wall_clock(key)} == {"seconds", "time/step"}
    table = pq.read_table(run.path / "responses" / "step-000050.parquet").to_pydict()
    assert table == {
        "step": [50, 50, 50],
        "prompt_id": ["p1", "p1", "p2"],
        "prompt": ["1+1=?", "1+1=?", "<b>"],
        "columns": ['{"answer": "2"}', '{"answer": "2"}', "{}"],
        "response": ["a\u2028b", "ねこ", ""],
        "total": [1.5, None, None],
        "advantage": [None, 0.75, -0.25],
        "kept": [True, True, False],
        "stop": ["eos", "length", "stop"],
        "num_tokens": [3, 1, 2],
        "logprob": [-0.75, None, -2.0],  # forced tokens are not the policy's
        "version": [4, None, 4],
        "seed": [2**64 - 1, None, 1],
        "rewards/exact": [1.0, None, None],
        "rewards/exact/status": ["ok", "timeout", None],
        "rewards/length": [0.5, None, None],
        "rewards/length/status": ["ok", None, None],
    }


def test_types_do_not_depend_on_what_a_step_has(run: Run) -> None:
    run.record(1, {}, groups())
    run.record(2, {}, [Group(Prompt("p", (1,), "?"), (Response((1,), (True,), "x"),))])
    first, second = (pq.read_schema(run.path / "responses" / f"step-00000{step}.parquet") for step in (1, 2))
    assert {field.name: field.type for field in second} == {f.name: f.type for f in first if not f.name.startswith("rewards/")}


def test_what_is_not_a_number_is_null_and_noted(run: Run) -> None:
    run.record(7, {"loss": math.nan, "kl": -math.inf, "reward": 0.5})
    (row,) = read_lines(run.path / "metrics.jsonl")
    assert row["loss"] is None and row["kl"] is None and row["reward"] == 0.5
    warnings = [event for event in read_lines(run.path / "events.jsonl") if event["kind"] == "warning"]
    assert [(event["step"], event["text"]) for event in warnings] == [(7, "step 7: not a finite number: loss, kl")]


def test_kept_must_say_of_every_group(run: Run) -> None:
    with pytest.raises(AssertionError, match="2 groups, but 1"):
        run.record(1, {}, groups(), kept=[True])


@pytest.mark.parametrize("log", ["metrics.jsonl", "events.jsonl"])
def test_a_torn_last_line_is_cut(run: Run, log: str) -> None:
    run.record(1, {"reward": 0.1})
    run.event("note", text="ね\u2028こ")
    whole = (run.path / log).read_bytes()
    with (run.path / log).open("ab") as torn:
        torn.write('{"step": 2, "text": "ねこ'.encode()[:-1])  # in the middle of a letter
    assert read_lines(run.path / log) == [json.loads(line) for line in whole.split(b"\n")[:-1]]
    again = Run.open(run.path)
    assert (run.path / log).read_bytes().startswith(whole)
    again.record(2, {"reward": 0.2})
    assert [row["step"] for row in read_lines(run.path / "metrics.jsonl")] == [1, 2]
    assert [event["kind"] for event in read_lines(run.path / "events.jsonl")] == ["created", "note", "opened"]


def test_cut_after_forgets_what_will_be_done_again(run: Run) -> None:
    for step in range(1, 6):
        run.record(step, {"reward": step / 7}, groups())
    for step in (0, 2, 5):
        run.write_eval("before", step, {"step": step}, [{"correct": True}])
    lines = (run.path / "metrics.jsonl").read_bytes().split(b"\n")
    run.cut_after(2)
    assert (run.path / "metrics.jsonl").read_bytes() == b"\n".join(lines[:2]) + b"\n"
    assert sorted(file.name for file in (run.path / "responses").iterdir()) == ["step-000001.parquet", "step-000002.parquet"]
    assert sorted(folder.name for folder in (run.path / "eval").iterdir()) == ["before@0", "before@2"]
    run.cut_after(0)
    assert read_lines(run.path / "metrics.jsonl") == []


# -- checkpoints


def test_checkpoints_keep_the_newest_and_give_back_the_state(run: Run) -> None:
    assert run.latest_checkpoint() is None
    state = {"beta": 0.1 + 0.2, "gap": math.inf, "seen": [1, 2]}
    for step in (5, 10, 100):
        run.checkpoint(step, weights(step), {**state, "step": step})
    assert sorted(path.name for path in run.path.glob("*checkpoint*")) == ["checkpoint-10", "checkpoint-100"]
    assert run.latest_checkpoint() == (100, run.path / "checkpoint-100", {**state, "step": 100})
    assert_holds(run.path / "checkpoint-100", 100)
    run.checkpoint(101, weights(101), {}, keep=1)
    assert [path.name for path in run.path.glob("*checkpoint*")] == ["checkpoint-101"]


def shorten(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as model:
        model.truncate(1000)


@pytest.mark.parametrize(
    "spoil",
    [
        shorten,
        lambda folder: (folder / "tokenizer" / "vocab.txt").unlink(),
        lambda folder: (folder / "state.json").unlink(),
        lambda folder: (folder / "state.json").write_text('{"step": 2, "fil'),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_passed_over(run: Run, spoil: Callable[[Path], None]) -> None:
    run.checkpoint(1, weights(1), {})
    run.checkpoint(2, weights(2), {})
    (run.path / "checkpoint-2-copy").mkdir()
    (run.path / "checkpoint-2" / "notes.txt").write_text("a person may add a file")
    assert (run.latest_checkpoint() or (0,))[0] == 2
    spoil(run.path / "checkpoint-2")
    assert (run.latest_checkpoint() or (0,))[0] == 1
    run.checkpoint(2, weights(2), {"again": True})
    assert run.latest_checkpoint() == (2, run.path / "checkpoint-2", {"again": True})


def save_until_killed(path: Path, saving: Event) -> None:
    run = Run.open(path)
    latest = run.latest_checkpoint()
    assert latest is not None
    step = latest[0]
    run.cut_after(step)
    saving.set()
    while True:
        step += 1
        run.record(step, {"reward": 1 / step})
        run.checkpoint(step, weights(step), {"step": step})


def test_kill_9_while_saving_leaves_the_checkpoint_before(run: Run) -> None:
    """Law 7. Killed at random moments, the newest checkpoint is always whole, never older than before, and its metrics are there."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["pytest", "ikusei.run.folder", "ikusei.intervals", "ikusei.run.tables"])  # children start quickly
    began = time.monotonic()
    for step in range(1, 6):
        run.checkpoint(step, weights(step), {"step": step})
    pace = (time.monotonic() - began) / 5
    run.cut_after(0)
    rng, reached, kills, torn = random.Random(1), 5, 0, 0
    while kills < 25 or torn < 5 or reached < 20:
        assert time.monotonic() < began + 90, f"after {kills} kills only {reached} checkpoints, and {torn} kills within one"
        saving = server.Event()
        process = server.Process(target=save_until_killed, args=(run.path, saving))
        process.start()
        while not saving.wait(timeout=0.01):
            assert process.is_alive()
        time.sleep(rng.uniform(0.0, 4 * pace))
        process.kill()
        process.join()
        kills += 1
        torn += bool(list(run.path.glob(".*.tmp")))
        latest = run.latest_checkpoint()
        assert latest is not None and latest[0] >= reached and latest[2] == {"step": latest[0]}
        reached = latest[0]
        assert_holds(latest[1], reached)
        steps = [row["step"] for row in read_lines(run.path / "metrics.jsonl")]
        assert steps in (list(range(6, reached + 1)), list(range(6, reached + 2)))  # all that it stands for, and at most the next
    Run.open(run.path)
    assert not list(run.path.glob(".*.tmp"))


def test_what_a_kill_left_half_written_is_removed_on_opening(run: Run) -> None:
    """A file or a folder, in the run's folder or in one inside it; and nothing else."""
    run.write_eval("before", 0, {"step": 0}, [{"correct": True}])
    run.record(1, {"reward": 0.5}, groups())
    kept = sorted(path for path in run.path.rglob("*") if path.suffix not in (".jsonl", ".json"))
    for name in (".checkpoint-4.tmp", "eval/.after@4.tmp"):
        (run.path / name).mkdir()
        (run.path / name / "results.json").write_text("{")
    (run.path / "responses" / ".step-000002.parquet.tmp").write_text("PAR")
    Run.open(run.path)
    assert not list(run.path.rglob(".*.tmp"))
    assert sorted(path for path in run.path.rglob("*") if path.suffix not in (".jsonl", ".json")) == kept


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder where a few files of 200 kB fit and one of 1.2 MB does not: a small disk of its own, or else a limit on file size."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True).returncode == 0
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if not mounted:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    yield folder
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    if mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def by_safetensors(folder: Path) -> None:
    save_file({"weight": np.zeros(300_000, dtype=np.float32)}, folder / "model.safetensors")


@pytest.mark.parametrize("write", [weights(2, size=1_200_000), by_safetensors])
def test_a_full_disk_leaves_the_checkpoint_before(small_disk: Path, write: Callable[[Path], None]) -> None:
    run = Run.create(small_disk, "tiny", SOURCE, RESOLVED, {})
    run.checkpoint(1, weights(1), {"step": 1})
    with pytest.raises(OSError, match=r"checkpoint-2 could not be written \(\d+ MB free.*checkpoint-1 is whole; make room, then --resume"):
        run.checkpoint(2, write, {"step": 2})
    assert sorted(path.name for path in run.path.glob("*checkpoint*")) == ["checkpoint-1"]
    assert not list(run.path.glob(".*.tmp"))
    assert run.latest_checkpoint() == (1, run.path / "checkpoint-1", {"step": 1})
    assert_holds(run.path / "checkpoint-1", 1)
    run.checkpoint(3, weights(3), {"step": 3})  # with room again, the run goes on
    assert (run.latest_checkpoint() or (0,))[0] == 3
    with pytest.raises(OSError, match="final could not be written"):
        run.save_final(write)
    assert not (run.path / "final").exists() and not list(run.path.glob(".*.tmp"))


def test_a_mistake_in_writing_is_not_called_a_full_disk(run: Run) -> None:
    with pytest.raises(KeyError):
        run.checkpoint(1, lambda folder: {}["missing"], {})
    assert not list(run.path.glob("*checkpoint*"))


# -- evaluations and the end


def test_evaluations_are_written_whole_and_read_again(run: Run) -> None:
    assert run.read_eval("before", 0) is None
    results: dict[str, Any] = {"name": "before", "pass@1": Interval(0.25, 0.125, 0.5), "gap": math.nan}
    run.write_eval("before", 0, results, [{"prompt_id": "p", "correct": False, "answer": None}])
    run.write_eval("before", 0, results, [{"prompt_id": "p", "correct": True, "answer": "2"}])  # made again after a kill
    assert run.read_eval("before", 0) == {"name": "before", "pass@1": {"value": 0.25, "low": 0.125, "high": 0.5}, "gap": None}
    assert [path.name for path in (run.path / "eval").iterdir()] == ["before@0"]
    samples = pq.read_table(run.eval_folder("before", 0) / "samples.parquet").to_pylist()
    assert samples == [{"prompt_id": "p", "correct": True, "answer": "2"}]


def summary(status: str) -> dict[str, Any]:
    after = {"pass@1": Interval(0.75, 0.5, 0.875)}
    return {"status": status, "steps": 2, "eval": {"after": after}, "tokens_sampled": 90, "tokens_trained": 80}


def test_summary_is_as_promised_and_seconds_add_up_over_parts(run: Run) -> None:
    started_earlier = Run(run.path, run.started - 100.0)
    started_earlier.record(1, {"reward": 0.5})
    again = Run.open(run.path)
    assert 100 <= again.seconds < 160
    again.cut_after(0)  # the step is forgotten, the time it took is not
    Run.open(run.path).finish(summary("finished"))
    written = read_json(run.path / "summary.json")
    assert list(written) == ["format", "status", "steps", "seconds", "eval", "tokens_sampled", "tokens_trained"]
    assert written["eval"] == {"after": {"pass@1": {"value": 0.75, "low": 0.5, "high": 0.875}}}
    assert 100 <= written["seconds"] < 160


def test_finish_refuses_another_summary(run: Run) -> None:
    with pytest.raises(AssertionError, match="summary has"):
        run.finish({"status": "finished"})
    with pytest.raises(AssertionError, match="none of"):
        run.finish(summary("done"))


def test_save_final_replaces_what_an_earlier_part_left(run: Run) -> None:
    run.save_final(weights(1))
    assert_holds(run.save_final(weights(2)), 2)
    assert not list(run.path.glob(".*"))
