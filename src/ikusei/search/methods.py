"""Test-time methods by name: `vote:16x`. `Nx` says about how many answers' worth of tokens are spent:

vote, mbr                              N answers, of which one is chosen
best_of_n, weighted_vote, regularised  the same, by a reward
rounds                                 at most N answers, four at a time, until the vote is decided
beam, dvts                             N candidates, a quarter of which go on after each step, led by a reward
revision                               N answers in turn, each made in sight of the one before
budget                                 a thought that is extended N - 1 times
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ikusei.search.beam import Beam
from ikusei.search.best_of_n import BestOfN
from ikusei.search.budget import Budget
from ikusei.search.drawn import Drawn, VoteInRounds
from ikusei.search.mbr import MBR
from ikusei.search.regularised import Regularised
from ikusei.search.revision import Revision
from ikusei.search.thinker import Thinker
from ikusei.search.vote import Vote

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
