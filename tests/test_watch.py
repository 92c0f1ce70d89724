"""The watch: what counts as moved, and what each monitor sees and does not see. Runs under watch: tests/laws/test_law_06_watched.py."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable

import pytest

from ikusei.guard.monitors import MONITORS, History
from ikusei.guard.outcomes import RewardSpec
from ikusei.guard.trend import change, fall, kendall
from ikusei.guard.watch import Alarm, Watch, WatchSettings, samples
from ikusei.types import Group, Prompt, Response, Score

TRAINED, GOLD = RewardSpec("style", "my.py:style"), RewardSpec("exact", "exact", gold=True)
BOTH = (TRAINED, GOLD)


def test_the_trend_is_mann_kendalls() -> None:
    """By hand: 1 3 2 5 4 has 8 pairs that rise and 2 that fall, S = 6; its variance is 5·4·15/18. With a tie: 1 1 2 4, S = 5 of 6."""
    assert kendall([1, 3, 2, 5, 4]) == pytest.approx((6 - 1) / math.sqrt(5 * 4 * 15 / 18))
    assert kendall([4, 2, 1, 1]) == pytest.approx(-(5 - 1) / math.sqrt((4 * 3 * 13 - 2 * 1 * 9) / 18))
    assert kendall([2, 2, 2, 2, 2]) == kendall([1, 2, 3]) == 0


def test_a_change_is_of_the_last_window_from_the_first() -> None:
    """By hand: of 8 values windows are of 4; of the successive differences 1, -2, 2, 3, 1, -1, 1 the middle one is 1 in size."""
    found = change([1, 2, 0, 2, 5, 6, 5, 6])
    assert found is not None
    assert (found.before, found.now, found.error) == (1.25, 5.5, pytest.approx(math.sqrt(2 / 4) / 0.954))
    assert found.by == 4.25 and found.least == 4 * (1 + 3 / 8)
    assert found.rose and not found.fell, "5.7 standard errors, where so few steps ask for 5.5"
    assert found.since == 4, "the step to 5 is the first that never comes back to a quarter of the way"
    assert change([1, 2, 0, 2, 5, 6, 5]) is None, "the windows would overlap"


def test_a_fall_is_from_the_best_window() -> None:
    found = fall([0.1, 0.2, 0.1, 0.9, 0.8, 0.9, 0.9, 0.9, 0.3, 0.2, 0.1, 0.1])
    assert found is not None and found.before == pytest.approx(0.875) and found.now == pytest.approx(0.175)
    assert found.since == 9, "of three values the mean is then below 0.7, a quarter of the way"
    rising = fall([float(n) for n in range(12)])  # the best window before the last, of 4 values, is 4 5 6 7
    assert rising is not None and (rising.before, rising.now) == (5.5, 9.5)
    assert fall([0.5] * 12) is not None and not fall([0.5] * 12).fell  # pyright: ignore[reportOptionalMemberAccess]


Line = Callable[[int], float]
LEVEL: dict[str, Line] = {
    "reward": lambda t: 0.4, "reward_std": lambda t: 0.3, "rewards/style/mean": lambda t: 0.4, "rewards/exact/mean": lambda t: 0.3,
    "rewards/exact/std": lambda t: 0.45, "completions/mean_length": lambda t: 40.0, "completions/clipped_ratio": lambda t: 0.02,
    "completions/repetition": lambda t: 0.05, "completions/duplicates": lambda t: 0.02, "completions/failed": lambda t: 0.0,
    "thoughts/empty": lambda t: 0.2, "entropy": lambda t: 0.6, "kl": lambda t: 0.05, "sampling/logp_gap": lambda t: 1e-6,
    "reward/length": lambda t: 0.2, "gold/agreement": lambda t: 0.6, "advantage/effective": lambda t: 0.5,
}  # fmt: skip


def up(start: float, end: float, at: int = 8, until: int = 30) -> Line:
    """`start`, from step `at` on a straight line to `end`, which it has at `until`."""
    return lambda t: start + (end - start) * min(max((t - at) / (until - at), 0.0), 1.0)


def watched(lines: dict[str, Line], specs: tuple[RewardSpec, ...] = BOTH, steps: int = 40, seed: int = 0, noise: float = 0.04) -> Watch:
    """A watch that has seen so many steps of a run whose numbers are level but for `lines`, each with chance of its own."""
    chance, watch = random.Random(seed), Watch(specs, WatchSettings())
    for t in range(1, steps + 1):
        watch.see(t, {name: line(t) * (1 + noise * chance.gauss(0, 1)) for name, line in (LEVEL | lines).items()})
    return watch


RISING = {"reward": up(0.4, 0.9), "rewards/style/mean": up(0.4, 0.9)}
PLANTED: dict[str, tuple[dict[str, Line], tuple[RewardSpec, ...]]] = {
    "gold falls": ({"rewards/exact/mean": up(0.3, 0.1)}, BOTH),
    "gold stays": (RISING, BOTH),
    "gold disagrees": ({"gold/agreement": up(0.6, -0.4)}, BOTH),
    "reward falls": ({"reward": up(0.4, 0.05)}, (TRAINED,)),
    "parts": (
        {"rewards/style/mean": up(0.4, 0.9), "rewards/short/mean": up(0.8, 0.3)}, (TRAINED, RewardSpec("short", "my.py:short", weight=0.9)),
    ),
    "empty thoughts": ({"thoughts/empty": up(0.2, 0.8)}, BOTH),
    "length": ({"completions/mean_length": up(40, 90)}, BOTH),
    "long answers pay": ({"reward/length": lambda t: 0.98, "completions/mean_length": up(40, 55)}, (TRAINED,)),
    "cut off": ({"completions/clipped_ratio": up(0.02, 0.5)}, BOTH),
    "repetition": ({"completions/repetition": up(0.05, 0.6)}, BOTH),
    "copies": ({"completions/duplicates": up(0.02, 0.9)}, BOTH),
    "entropy": ({"entropy": up(0.6, 0.05)}, BOTH),
    "KL": ({"kl": up(0.05, 3.0)}, BOTH),
    "failures": ({"completions/failed": up(0.0, 0.3)}, BOTH),
    "log-probs": ({"sampling/logp_gap": lambda t: 0.3}, BOTH),
    "few answers": ({"advantage/effective": lambda t: 0.01}, BOTH),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_each_monitor_sees_what_it_is_for(name: str) -> None:
    """And no other one speaks of it; it says so once, and since when."""
    lines, specs = PLANTED[name]
    raised = watched(lines, specs).alarms
    assert [alarm.name for alarm in raised] == [name]
    begins = 1 if name in ("log-probs", "few answers", "long answers pay") else 8
    assert begins <= raised[0].since <= raised[0].step <= 40
    assert raised[0].text and raised[0].do and "{" not in raised[0].do


def test_a_loss_that_rises_is_seen_where_there_is_no_reward() -> None:
    watch, chance = Watch((), WatchSettings()), random.Random(1)
    for t in range(1, 41):
        watch.see(t, {"loss": up(2.0, 0.5, 0, 15)(t) + up(0, 1.5, 20)(t) + 0.03 * chance.gauss(0, 1)})
    (alarm,) = watch.alarms
    assert alarm.name == "loss rises" and 20 <= alarm.since <= alarm.step <= 40
    said = re.fullmatch(r"the loss rose from (\S+) to (\S+)", alarm.text)
    assert said is not None and 0.5 < float(said[1]) < 0.7 and 1.3 * float(said[1]) < float(said[2]) < 1.2


@pytest.mark.parametrize("end", [0.5, 2.0, 2.04])
def test_a_loss_that_falls_or_stays_is_no_alarm(end: float) -> None:
    watch, chance = Watch((), WatchSettings()), random.Random(1)
    for t in range(1, 41):
        watch.see(t, {"loss": up(2.0, end, 5)(t) + 0.03 * chance.gauss(0, 1)})
    assert watch.alarms == []


@pytest.mark.parametrize(("share", "alarms"), [(0.2, []), (0.04, []), (0.02, ["few answers"])])
def test_few_answers_are_fewer_than_one_in_thirty(share: float, alarms: list[str]) -> None:
    assert [alarm.name for alarm in watched({"advantage/effective": lambda t: share}).alarms] == alarms


@pytest.mark.parametrize(("swing", "alarms"), [(0.05, ["gold disagrees"]), (0.4, [])])
def test_gold_disagrees_only_where_chance_would_not_say_so(swing: float, alarms: list[str]) -> None:
    """A mean of -0.1 over 12 steps, whose error is 0.015 or 0.12: three of these from -0.05, or not."""
    watch = Watch(BOTH, WatchSettings())
    for t in range(1, 37):
        watch.see(t, {name: line(t) for name, line in LEVEL.items()} | {"gold/agreement": -0.1 + swing * (-1) ** t})
    assert [alarm.name for alarm in watch.alarms] == alarms


def test_answers_that_become_short_raise_an_alarm_too() -> None:
    """From 90 tokens to 40, while the gold does not rise; not from 50 to 40."""
    (alarm,) = watched({"completions/mean_length": up(90, 40)}).alarms
    assert alarm.name == "length" and re.match(r"the answers' length went from 90 to \d\d tokens", alarm.text)
    assert watched({"completions/mean_length": up(50, 40)}).alarms == []


def test_every_monitor_is_planted_here() -> None:
    assert {*PLANTED, "loss rises"} == {monitor.name for monitor in MONITORS}


def test_what_has_learned_may_be_long_sure_and_alike() -> None:
    """Lengths, copies and entropy move where the gold rises too: that is no alarm."""
    learned = {**RISING, "rewards/exact/mean": up(0.3, 0.9), "entropy": up(0.6, 0.02), "completions/mean_length": up(40, 90)}
    assert watched({**learned, "completions/duplicates": up(0.02, 0.9)}).alarms == []


@pytest.mark.parametrize(("gain", "better"), [(-0.5, False), (0.0, False), (0.12, False), (0.25, True), (0.9, True)])
def test_a_run_may_have_learned_from_two_standard_errors_on(gain: float, better: bool) -> None:
    """A reward goes up and down by 0.1, so a difference of two means of four has the error 0.074, and of 12 steps five of it are sure."""
    history = History((TRAINED,))
    for t in range(12):
        history.add(t + 1, {"reward": 0.4 + 0.1 * (t % 2) + gain * (t >= 8)})
    found = change(history.line("reward")[1])
    assert found is not None and found.error == pytest.approx(0.1 / 0.954 * math.sqrt(2 / 4)) and found.rose == (gain == 0.9)
    assert history.better is better


def test_chance_alone_raises_hardly_an_alarm() -> None:
    """30 level runs of 100 steps whose values differ by a fifth from step to step."""
    raised = [alarm for seed in range(30) for alarm in watched({}, steps=100, seed=seed, noise=0.2).alarms]
    assert len(raised) <= 2, [alarm.name for alarm in raised]


@pytest.mark.parametrize("rate", [0.0005, 0.002, 0.01, 0.3, 0.99, 0.999])
def test_rare_answers_raise_no_alarm(rate: float) -> None:
    """128 answers a step that are right so often, and nothing changes: in most steps all are wrong, or all right."""
    for seed in range(3):
        chance, watch = random.Random(seed), Watch(BOTH, WatchSettings())
        for t in range(1, 101):
            right = sum(chance.random() < rate for _ in range(128)) / 128
            spread = math.sqrt(right * (1 - right))
            watch.see(t, {"reward": right, "reward_std": spread, "rewards/exact/mean": right, "rewards/exact/std": spread})
        assert not watch.alarms


def test_gold_that_is_reached_cannot_follow() -> None:
    """98 % are right by the gold from the start; the reward has more to ask for, and rises."""
    lines: dict[str, Line] = {
        **RISING,
        "rewards/exact/mean": lambda t: 0.99,
        "rewards/exact/std": lambda t: 0.14,
        "gold/most": lambda t: 1.0,
    }
    assert watched(lines, noise=0.005).alarms == []


def test_quiet_alarms_are_not_raised_and_unknown_names_are_told() -> None:
    watch = Watch(BOTH, WatchSettings(quiet=("KL",)))
    for t in range(1, 41):
        watch.see(t, {"kl": 3.0})
    assert not watch.alarms
    with pytest.raises(ValueError, match="got 'kl'; allowed: gold falls"):
        WatchSettings(quiet=("kl",))
    with pytest.raises(ValueError, match="gold_every=-1"):
        WatchSettings(gold_every=-1)


def test_a_watch_that_goes_on_knows_what_was_seen_and_tells_no_alarm_twice() -> None:
    rows = [{"step": float(t)} | {name: line(t) for name, line in (LEVEL | {"kl": lambda t: 3.0}).items()} for t in range(1, 41)]
    first, again, untold = (Watch(BOTH, WatchSettings()) for _ in range(3))
    raised = [alarm for t, row in enumerate(rows[:30], 1) for alarm in first.see(t, row)]
    assert [alarm.name for alarm in raised] == ["KL"] and first.alarms == raised
    again.restore(rows[:30], raised)
    assert [alarm for t, row in enumerate(rows[30:], 31) for alarm in again.see(t, row)] == [] and again.alarms == raised
    untold.restore(rows[:30], [])
    assert [(alarm.name, alarm.since) for alarm in untold.see(31, rows[30])] == [("KL", 22)], "of the last ten values, nine were restored"


def test_what_is_not_finite_is_no_number() -> None:
    """In the file it is null, in the run NaN: both are passed over."""
    line = {"reward": up(0.4, 0.05)}
    lost: dict[str, Line] = {"reward": lambda t: math.nan if t % 7 == 0 else line["reward"](t)}
    assert [alarm.name for alarm in watched(lost, (TRAINED,)).alarms] == ["reward falls"]


def test_the_answers_shown_are_of_different_prompts_and_show_it_most() -> None:
    def answer(text: str, total: float) -> Response:
        return Response(tuple(map(ord, text)), (True,) * len(text), text, score=Score(total))

    groups = [
        Group(Prompt(str(g), (1,), f"{g}?"), (answer("<think></think>1", 0.2 * g), answer("<think>abc</think>1", 1.0))) for g in range(5)
    ]
    alarm = Alarm("empty thoughts", 9, 8, "", "")
    shown = samples(alarm, groups)
    assert [(group.prompt.text, response.text) for group, response in shown] == [(f"{g}?", "<think></think>1") for g in (4, 3, 2)]
