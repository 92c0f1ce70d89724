"""Test-time compute: `answer` loads a model and answers a prompt by one of the test-time methods (methods.py).

    import ikusei
    result = ikusei.answer("runs/<run>", "123+456=", think="vote", n=16)
    result.chosen.text, result.tokens

`think` is a method's name, or a value such as Beam(n=8, width=2, stop=(" ",)). Left out: choosing the method and N by the difficulty of
the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ikusei.samplers.continuation import Writer
from ikusei.search.method import Guide, Method, Result, by_function, squashed
from ikusei.search.methods import method
from ikusei.types import Example, Group, Prompt, RewardResult, Sampling, Score

Reward = str | Callable[[Prompt, str], float | None]  # a reward model, or a function of the prompt and the text so far


def answer(
    model: str | None,
    prompt: str,
    think: str | Method = "vote",
    reward: Reward | None = None,
    n: int = 16,
    sampling: Sampling | None = None,
    seed: int = 0,
) -> Result:
    """The result of a test-time method: `chosen`, the `responses` that it was chosen from, and the number of `tokens` sampled.

    `model` is a folder, a run, a hub id, seedling, or None for the newest run. `think` is a method's name, with `n` as its N, or
    a method. Raises ValueError for an unknown method, and for one that needs a reward and gets none.
    """
    from ikusei.run.find import find_model
    from ikusei.samplers.load import load_sampler  # torch and transformers: the registry imports this file too, for a help text
    from ikusei.text.chat import render

    strategy = method(think, n, reward is not None) if isinstance(think, str) else think
    sampler = load_sampler(find_model(model))
    writer = Writer(sampler, sampling or Sampling(), seed)
    [result] = strategy.run(writer, [render(sampler.tokenizer, Example(prompt))], guide_of(reward, writer))
    return result


def guide_of(reward: Reward | None, writer: Writer) -> Guide | None:
    """The guide: a reward model through a sigmoid, or a function unchanged."""
    if reward is None or not isinstance(reward, str):
        return by_function(reward) if reward else None
    from ikusei.models.learned_reward import LearnedReward, RewardEnsemble
    from ikusei.run.find import find_model

    ensemble = RewardEnsemble("learned", LearnedReward((find_model(reward),)), writer.tokenizer)

    def scored(group: Group, parts: Sequence[dict[str, RewardResult]]) -> Group:
        scores = [Score(each["learned"].value, each) for each in parts]
        return replace(group, responses=tuple(replace(r, score=score) for r, score in zip(group.responses, scores, strict=True)))

    return squashed(lambda groups: [scored(group, parts) for group, parts in zip(groups, ensemble(groups), strict=True)])
