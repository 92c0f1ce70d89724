"""The registry of test-time methods: what `--think`, `ikusei.answer` and `ikusei scale` know by name.

A method is a file of this folder whose METHODS names it, one record for each of its forms (`MethodSpec`); nothing else is to be touched.
The files are imported here, and a help text is made of the records, so they load neither torch nor transformers at their top.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from functools import cache

from ikusei import search
from ikusei.search.method import Method, MethodSpec
from ikusei.search.repeated import RepeatedSampling

FORMER = {"stretch": ("extend", 0), "cut": ("truncate", 0), "budget": ("extend", -1)}  # old names: what it is now, and what N is more


@cache
def registry() -> dict[str, MethodSpec]:
    """The records by name: those that need no guide first, and of these the pooled ones."""
    files = [importlib.import_module(f"ikusei.search.{file.name}") for file in pkgutil.iter_modules(search.__path__)]
    specs = [spec for file in files for spec in getattr(file, "METHODS", ())]
    specs.sort(key=lambda spec: ("guide" in spec.needs, spec.chooser is None, spec.slow, spec.name))
    assert len({spec.name for spec in specs}) == len(specs), "two test-time methods of one name"
    return {spec.name: spec for spec in specs}


def current(name: str) -> str:
    """The name that a method has now: `stretch` and `cut` are called extend and truncate."""
    return FORMER.get(name, (name, 0))[0]


def build(spec: MethodSpec, n: int, step: str = "\n") -> Method:
    """The method of N. A step of it, where it has steps, ends with `step`."""
    if spec.chooser is not None:
        return RepeatedSampling(n, spec.chooser)
    assert spec.make is not None
    return spec.make(n, step)


def method(name: str, n: int, has_reward: bool) -> Method:
    """The method of that name. Raises ValueError where there is none, or it needs a reward."""
    spec, more = registry().get(current(name)), FORMER.get(name, (name, 0))[1]
    if spec is None or n < 1:
        raise ValueError(f"think: got {name!r} with n={n}; {_allowed()}")
    if "guide" in spec.needs and not has_reward:
        raise ValueError(f"think {name}: it needs a reward, and there is none; give a reward model, {name}:{n}x:FOLDER, or take vote:{n}x")
    return build(spec, n + more)


def read_method(text: str) -> tuple[Method, str | None]:
    """`4x`, `vote:4x` or `best_of_n:4x:FOLDER`: the method, and the reward model that it is given."""
    read = re.fullmatch(r"(?:(\w+):)?(\d+)x(?::(.+))?", text)
    if read is None:
        raise ValueError(f"--think: got {text!r}; {_allowed()}")
    name, n, reward = read.groups()
    return method(name or "vote", int(n), reward is not None), reward


def help_text(guided: bool) -> str:
    """The methods that need a guide, or those that need none, as a list with a line for each."""
    return "".join(f"\n- {spec.name}: {spec.summary}" for spec in registry().values() if ("guide" in spec.needs) == guided)


def _allowed() -> str:
    return f"allowed: Nx, NAME:Nx or NAME:Nx:REWARD_MODEL, N being 1 or more and NAME one of {', '.join(registry())}; for example 4x"
