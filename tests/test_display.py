"""The progress display: one line a step without a terminal, one panel that stays in place with one."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from ikusei.run.display import Display, clock_time, display, sparkline
from ikusei.run.health import judge

RL = {
    "reward": 0.5,
    "reward_std": 0.25,
    "loss": 0.0,
    "thoughts/mean_length": 12.0,
    "thoughts/empty": 0.4,
    "kl": 0.02,
    "tokens_sampled": 100.0,
}


def shown(terminal: bool, width: int, steps: list[dict[str, float]], note: str | None = None) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=width, height=30, color_system=None)
    with display(len(steps), "runs/one", console) as progress:
        for step, metrics in enumerate(steps, 1):
            progress.update(step, metrics, note)
        progress.say("saved [final]")
    return out.getvalue()


def test_without_a_terminal_one_line_a_step() -> None:
    lines = shown(False, 40, [RL, RL | {"reward": math.nan}, RL]).splitlines()
    assert lines[0] == "runs/one" and lines[-1] == "saved [final]" and len(lines) == 5
    assert lines[1] == "step 1/3 · reward 0.500 ± 0.25 · thoughts 12 characters 40% empty · policy kl 0.020"
    assert "reward not a number ± 0.25" in lines[2]
    assert "left" in lines[3] and "\x1b" not in "".join(lines)


def test_warnings_are_lines_of_their_own() -> None:
    assert "\nwarning: step 1: [half] cut off\n" in shown(False, 40, [RL], "step 1: [half] cut off")


def test_supervised_runs_show_the_loss_and_only_what_is_there() -> None:
    line = shown(False, 200, [{"loss": 2.5, "learning_rate": 1e-3, "num_tokens": 10.0}]).splitlines()[1]
    assert line == "step 1/1 · loss 2.5000 · update lr 1.0e-03"


@pytest.mark.parametrize("width", [200, 80, 40])
def test_on_a_terminal_a_panel(width: int) -> None:
    text = shown(True, width, [RL | {"reward": step / 8, "tokens_sampled": 50.0 * step} for step in range(8)], "look here")
    assert text.startswith("runs/one") and "saved [final]" in text
    last = text[text.rindex("╭") :]
    assert "step 8/8" in last and max(map(len, last.splitlines())) <= width
    if width >= 80:
        assert "0.875  ± 0.25" in last and "▁▂▃▄▅▆▇█" in last and "tokens/s" in last and "⚠ look here" in last and "loss" not in last


def test_sparkline_is_of_the_whole_run() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 30) == "▁▂▃▄▅▆▇█"
    assert sparkline([0.0] * 100 + [7.0] * 100, 4) == "▁▁██"
    assert sparkline([1.0, math.nan, 3.0], 9) == "▁ █"
    assert sparkline([2.0, 2.0], 9) == "▁▁"
    assert sparkline([math.nan], 9) == " " and sparkline([], 9) == "" and sparkline([1.0, 2.0], 0) == ""


def test_the_time_left_is_by_the_pace_of_the_last_steps() -> None:
    """Five steps in ten seconds, and 14 are left; five times three tokens in ten seconds."""
    shown = Display(30, "runs/one", Console(file=io.StringIO()))
    assert shown.time_left() == []
    shown.clock += [(100.0, 11, 40.0), (110.0, 16, 55.0)]
    assert shown.time_left() == ["0:28 left"] and shown.speed() == ["2 tokens/s"]


def test_clock_time() -> None:
    assert [clock_time(seconds) for seconds in (0, 59.9, 61, 3600, 36061)] == ["0:00", "0:59", "1:01", "1:00:00", "10:01:01"]


def test_healthy_ranges() -> None:
    assert [judge("kl", value, 1) for value in (0.2, 0.7, 2.5)] == ["healthy", "watch", "bad"]
    assert [judge("completions/clipped_ratio", value, 1) for value in (0.3, 0.31, 0.81)] == ["healthy", "watch", "bad"]
    assert [judge("reward", 0.1, step) for step in (19, 20)] == [None, "watch"]
    assert judge("entropy", 3.0, 1) is None and judge("thoughts/empty", 0.9, 50) is None


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        (
            {
                "loss": 0.7,
                "rewards/accuracies": 0.75,
                "rewards/margins": 0.5,
                "logps/chosen": -2.0,
                "logps/rejected": -7.25,
                "pairs/left": 1200,
            },
            "loss 0.7000 · pairs 75% chosen preferred margin 0.50 · log p chosen -2.0 rejected -7.2 · data 1,200 pairs left",
        ),
        ({"loss": 0.7, "accuracy": 0.9, "margin": 1.25, "mean_reward": 0.1}, "loss 0.7000 · pairs 90% in the right order margin 1.25"),
        (
            {"reward": 0.5, "loss": 1.0, "kl": 0.02, "objective/kl": 0.4, "loss/value": 0.125},
            "reward 0.500 · policy kl 0.020 · critic loss 0.125",
        ),
        ({"loss": 2.0, "replay/loss": 1.5}, "loss 2.0000 · replay loss 1.5000"),
        ({"reward": 0.5, "rows": 1200.0, "groups/kept": 0.5}, "reward 0.500 · rows 1,200"),
    ],
)
def test_each_kind_of_run_shows_what_matters_to_it(metrics: dict[str, float], words: str) -> None:
    assert shown(False, 200, [metrics]).splitlines()[1] == f"step 1/1 · {words}"
    panel = " ".join(shown(True, 92, [metrics]).split())
    assert all(value in panel for part in words.split(" · ") for value in part.split())
