"""What a command loads, as sets of modules and never as times: help loads next to nothing, a run nothing that it does not use yet.

Each runs in a process of its own, as a person would start it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[1] / "recipes" / "quickstart.yaml"
SMALL = ["train.steps=1", "train.prompts_per_step=2", "train.num_responses=2", "sampling.max_tokens=8", "eval.num_prompts=2",
         "eval.num_samples=2"]  # fmt: skip
HEAVY = {
    "torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy", "pyarrow", "matplotlib", "pandas", "pydantic", "ruamel",
    "jinja2", "sympy", "math_verify", "reasoning_gym", "peft", "bitsandbytes", "accelerate", "lm_eval", "inspect_ai",
}  # fmt: skip
COMMANDS = ["train", "check", "eval", "compare", "sample", "chat", "score", "lens", "scale", "runs", "new", "reproduce", "reward lint",
            "reward test", "reward replay"]  # fmt: skip
# transformers loads scipy.optimize for losses of its own, and torch loads sympy and pandas for its compiler: those we cannot spare.
NOT_BEFORE_A_TOKEN = {
    "matplotlib", "pyarrow", "scipy.stats", "peft", "bitsandbytes", "math_verify", "reasoning_gym", "ikusei.preflight", "ikusei.evaluation",
    "ikusei.serve", "ikusei.reproduce",
}  # fmt: skip

HELP = "import sys; from ikusei.cli.main import main\ntry: main(sys.argv[1:])\nexcept SystemExit: pass\n"
FIRST_TOKEN = """
import os, sys
from ikusei.samplers import decoding

def draw(*given):
    told(sys.__stdout__)
    sys.__stdout__.flush()
    os._exit(0)

decoding.draw = draw
from ikusei.cli.main import main
main(sys.argv[1:])
"""
TOLD = "import json, sys\ntold = lambda file: print('loaded', json.dumps(sorted(sys.modules)), file=file)\n"


def loaded(code: str, *words: str, folder: Path | None = None) -> set[str]:
    """The modules that are there when `code` calls told()."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", TOLD + code, *words], cwd=folder, env=environment, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("loaded ")]
    assert lines, f"{words}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return set(json.loads(lines[-1].partition(" ")[2]))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_loads_nothing_heavy(command: str) -> None:
    modules = loaded(HELP + "told(sys.stdout)", *command.split(), "--help")
    assert "ikusei.cli.main" in modules
    assert not HEAVY & modules


def test_every_command_is_asked_for_its_help() -> None:
    from ikusei.cli.main import app

    inside = [f"{name} {each}" for name in app for each in app[name] if not each.startswith("-")]
    alone = [name for name in app if not name.startswith("-") and not any(each.startswith(f"{name} ") for each in inside)]
    assert sorted([*inside, *alone]) == sorted(COMMANDS)


def test_a_run_loads_by_its_first_token_what_it_uses(tmp_path: Path) -> None:
    modules = loaded(FIRST_TOKEN, "train", str(RECIPE), *SMALL, folder=tmp_path)
    assert {"torch", "transformers", "ikusei.pipeline.training_run"} <= modules
    assert sorted(NOT_BEFORE_A_TOKEN & modules) == []


def test_a_reward_process_loads_neither_torch_nor_the_trainer() -> None:
    """What one imports, and a reward that every quickstart has; only `math` needs a library."""
    modules = loaded("import ikusei.guard.worker_main, ikusei.rewards.exact; told(sys.stdout)")
    assert "ikusei.guard.worker_main" in modules
    assert not HEAVY & modules


def test_what_lists_and_writes_needs_no_model(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text('{"prompt": "1+1=", "answer": "2"}\n' * 8)
    for words in (["runs"], ["new", "mine.yaml", "--data", "data.jsonl"], ["train"]):
        modules = loaded(HELP + "told(sys.stdout)", *words, folder=tmp_path)
        assert not {"torch", "transformers", "scipy", "pyarrow", "matplotlib"} & modules, words
    assert (tmp_path / "mine.yaml").exists()


def test_the_collector_rests_while_torch_is_loaded_and_not_after() -> None:
    loaded("""
import gc
from ikusei.models.first_import import loading

with loading():
    assert not gc.isenabled()
    import torch
assert gc.isenabled() and gc.get_freeze_count() > 100_000
with loading():
    assert gc.isenabled()
told(sys.stdout)
""")


def test_an_extra_that_is_missing_is_told_in_one_line_with_the_fix() -> None:
    code = """
import runpy, sys
for library in ("peft", "bitsandbytes", "lm_eval"):
    sys.modules[library] = None  # as where it is not installed

from ikusei.backends.optimizer import make_optimizer
from ikusei.models.adapter import Lora, adapt, four_bits

calls = [
    lambda: adapt(None, Lora(), 0),
    four_bits,
    lambda: make_optimizer([], "adamw_8bit", False, 0.0),
    lambda: runpy.run_module("ikusei.evaluation.lm_eval", run_name="__main__"),
]
for call in calls:
    try:
        call()
    except (ValueError, SystemExit) as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    told = done.stdout.splitlines()
    assert done.returncode == 0 and len(told) == 4, done.stdout + done.stderr
    for line, library, extra in zip(told, ("peft", "peft", "bitsandbytes", "lm_eval"), ("lora", "lora", "lora", "harness"), strict=True):
        assert f"needs {library}, which is not installed; pip install 'ikusei[{extra}]'" in line
