"""Find a recipe by what a person writes: a file, or the name of a recipe that comes with the program."""

from __future__ import annotations

from pathlib import Path

from ikusei.recipe.reader import did_you_mean
from ikusei.registry import RECIPES


def find_recipe(given: str | Path) -> Path:
    """`quickstart`, `hacks/echo` and `recipes/quickstart.yaml` mean the same in every folder, unless a file there is called so.

    Raises ValueError, with the names that there are, where it is neither.
    """
    path = Path(given).expanduser()
    if path.is_file():
        return path
    known = {file.relative_to(RECIPES).with_suffix("").as_posix(): file for file in sorted(RECIPES.rglob("*.yaml"))}
    name = path.as_posix().removesuffix(".yaml").removeprefix("recipes/")
    if name in known:
        return known[name]
    meant = did_you_mean(name, known)
    raise ValueError(f"{given}: no such recipe{meant}; allowed: a file, or one that comes with ikusei: {', '.join(known)}")
