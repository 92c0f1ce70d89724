"""Compute at answer time by name: `vote:16x` is a way to think (search/), and `answer` thinks with a model that is loaded for it.

    import ikusei
    found = ikusei.answer("runs/<run>", "123+456=", think="vote", n=16)
    found.chosen.text, found.tokens

`Nx` says about how many answers' worth of tokens are spent:

    vote, mbr                              N answers, of which one is chosen
    best_of_n, weighted_vote, regularised  the same, by a reward
    rounds                                 at most N answers, four at a time, until the vote is decided
    beam, dvts                             N candidates, a quarter of which go on after each step, led by a reward
    revision                               N answers in turn, each made in sight of the one before
    budget                                 a thought that is stretched N - 1 times

Or a frozen value of one's own, such as Beam(n=8, width=2, stop=(" ",)). Left out: choosing the way and N by how hard a prompt seems.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from ikusei.models.judge import Judge, LearnedReward
from ikusei.samplers.local import LocalSampler
from ikusei.search.beam import Beam
from ikusei.search.best_of_n import BestOfN
from ikusei.search.budget import Budget
from ikusei.search.choosing import answered
from ikusei.search.drawn import Drawn, VoteInRounds
from ikusei.search.mbr import MBR
from ikusei.search.regularised import Regularised
from ikusei.search.revision import Revision
from ikusei.search.thinker import Found, Guide, Thinker, by_function, squashed
from ikusei.search.vote import Vote
from ikusei.search.writing import Writer
from ikusei.talk import Reply, find_model, load_sampler
from ikusei.text.chat import render
from ikusei.types import Example, Group, Part, Prompt, Response, Sampling, Score

WIDTH = 4  # of beams, as in search-and-learn
GUIDED = frozenset({"weighted_vote", "best_of_n", "regularised", "beam", "dvts"})
WAYS: dict[str, Callable[[int], Thinker]] = {
    "vote": Drawn,
    "weighted_vote": lambda n: Drawn(n, Vote(weighted=True)),
    "best_of_n": lambda n: Drawn(n, BestOfN()),
    "regularised": lambda n: Drawn(n, Regularised()),
    "mbr": lambda n: Drawn(n, MBR()),
    "rounds": VoteInRounds,
    "beam": lambda n: Beam(n, min(n, WIDTH)),
    "dvts": lambda n: Beam(n, min(n, WIDTH), diverse=True),
    "revision": Revision,
    "budget": lambda n: Budget(stretches=n - 1),
}
Reward = str | Callable[[Prompt, str], float | None]  # a reward model, or a function of the prompt and what is written so far


def answer(
    model: str | None,
    prompt: str,
    think: str | Thinker = "vote",
    reward: Reward | None = None,
    n: int = 16,
    sampling: Sampling | None = None,
    seed: int = 0,
) -> Found:
    """The answer to a prompt that was thought about: `chosen`, the `responses` that it was chosen from, and the `tokens` that it took.

    `model` is a folder, a run, a hub id, seedling, or None for the newest run. `think` is a name of the above, `n` its N, or a value that
    has its own. Raises ValueError for a way that there is not, and for one that needs a reward and gets none.
    """
    thinker = way(think, n, reward is not None) if isinstance(think, str) else think
    sampler = load_sampler(find_model(model))
    writer = Writer(sampler, sampler.tokenizer, sampling or Sampling(), seed, sampler.causal.context)
    [found] = thinker.think(writer, [render(sampler.tokenizer, Example(prompt))], guide_of(reward, writer))
    return found


def replier(words: str) -> Reply:
    """A way to answer in a conversation, which says beside an answer how it was found. `words` as in `read_way`."""
    (thinker, reward), guides = read_way(words), dict[int, Guide | None]()

    def reply(sampler: LocalSampler, prompt: Prompt, sampling: Sampling, seed: int) -> tuple[Response, str]:
        writer = Writer(sampler, sampler.tokenizer, sampling, seed, sampler.causal.context)
        if not guides:
            guides[0] = guide_of(reward, writer)
        [found] = thinker.think(writer, [prompt], guides[0])
        return found.chosen, described(found)

    return reply


def described(found: Found) -> str:
    """`3 of 4 say so · 97 tokens`."""
    alike = sum(answered(response.text) == answered(found.chosen.text) for response in found.responses)
    said = [f"{alike} of {len(found.responses)} say so"] if len(found.responses) > 1 else []
    return " · ".join([*said, f"{found.tokens} tokens"])


ALLOWED = f"allowed: Nx, NAME:Nx or NAME:Nx:REWARD_MODEL, N being 1 or more and NAME one of {', '.join(WAYS)}; for example 4x"


def way(name: str, n: int, has_reward: bool) -> Thinker:
    """The way of that name. Raises ValueError where there is none, or it needs a reward."""
    if name not in WAYS or n < 1:
        raise ValueError(f"think: got {name!r} with n={n}; {ALLOWED}")
    if name in GUIDED and not has_reward:
        raise ValueError(f"think {name}: it needs a reward, and there is none; give a reward model, {name}:{n}x:FOLDER, or take vote:{n}x")
    return WAYS[name](n)


def read_way(words: str) -> tuple[Thinker, str | None]:
    """`4x`, `vote:4x` or `best_of_n:4x:FOLDER`: the way, and the reward model that it is given."""
    found = re.fullmatch(r"(?:(\w+):)?(\d+)x(?::(.+))?", words)
    if found is None:
        raise ValueError(f"--think: got {words!r}; {ALLOWED}")
    name, times, reward = found.groups()
    return way(name or "vote", int(times), reward is not None), reward


def guide_of(reward: Reward | None, writer: Writer) -> Guide | None:
    """What scores answers: a reward model's word between 0 and 1, or a function's as it is."""
    if reward is None or not isinstance(reward, str):
        return by_function(reward) if reward else None
    judge = Judge("learned", LearnedReward((find_model(reward),)), writer.tokenizer)

    def scored(group: Group, parts: Sequence[dict[str, Part]]) -> Group:
        scores = [Score(each["learned"].value, each) for each in parts]
        return replace(group, responses=tuple(replace(r, score=score) for r, score in zip(group.responses, scores, strict=True)))

    return squashed(lambda groups: [scored(group, parts) for group, parts in zip(groups, judge(groups), strict=True)])
