"""Rule-based rewards: a number for one response, hardened against reward hacking.

Each is called as `reward(prompt, response, **columns)`, where the columns are those of the data row. A recipe names one by its bare name.

A file is a reward where it defines what it is called, a function `exact` or a class `ThinkFormat` in think_format.py. A class says of
itself, as constants of its body that are literals:

    executes: ClassVar[bool] = True                       it runs model-written code, in a sandbox
    files: ClassVar[tuple[str, ...]] = ("path",)          those of its settings that are paths, found as all paths of a recipe are
    example: ClassVar[str] = "{path: ..., settings: ...}" how a recipe spells it, where it cannot do without settings

Left out, for later: JSON schema.
"""

from __future__ import annotations

from ikusei.registry import Definition, Registry


def is_reward(file: str, defined: Definition) -> bool:
    """Whether a function or class is what its file is called: `exact`, or `ThinkFormat` in think_format.py."""
    return defined.name in (file, file.title().replace("_", ""))


BUILT_IN = Registry(__name__, is_reward)
