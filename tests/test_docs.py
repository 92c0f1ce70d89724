"""The documents hold: their links and anchors lead somewhere, the files they name are there, and the commands they give are taken.

Nothing is run and nothing is fetched: our own commands are read by the program's parser and their overrides by the recipe's reader, of
make, python, pytest and pip the target, file, module or extra must exist. A name in capitals, in <brackets> or beginning with `my` stands
for something of the reader's own.
"""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from cyclopts import CycloptsError, MissingArgumentError

import ikusei
from ikusei.cli.main import app
from ikusei.recipe.find import find_recipe
from ikusei.recipe.schema import document_of, read_document
from test_shape_of_the_code import SEES

ROOT = Path(__file__).parents[1]
LISTED = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
FILES = sorted(name for name in LISTED.split("\0") if name and (ROOT / name).is_file())
DOCUMENTS = [name for name in FILES if name.endswith(".md") and not name.startswith("tests/written_by_0_1/")]
ARCHITECTURE = "docs/architecture.md"

LINK = re.compile(r"\]\(([^()\s]+)\)")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
IN_TICKS = re.compile(r"`([^`\n]+)`")
IN_A_FOLDER = re.compile(r"(?<![\w./<-])(?:src|docs|tests|bench|tour|recipes|seedling|findings)/[\w./-]*[\w/](?![\w<-])")
A_FILE = re.compile(r"[\w./-]+\.(?:py|yaml|j2|md)")
OURS = re.compile(r"(?<![\w./<-])ikusei((?:\.[A-Za-z_]\w*)+)")
PLACEHOLDER = re.compile(r"\b[A-Z]+\b(?!\.md)|[<>…]|\.\.\.|^my\b|^my_")
WRITTEN = {"recipe.yaml", "recommended.yaml"}  # by a run and by `ikusei check --write`
PROGRAMS = {"ikusei", "make", "python", "pytest", "pip", "inspect"}  # the first word of a command, without its folder
SHELL = {"for", "sh", "echo"}

Says = Callable[[str, str], Iterator[str]]  # of a document, its path and text: what is wrong


def links(path: str, text: str) -> Iterator[str]:
    for target in LINK.findall(FENCED.sub("", text)):
        file, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        to = (ROOT / path).parent / file if file else ROOT / path
        if not to.exists():
            yield f"{path}: the link {target} leads nowhere"
        elif anchor and anchor not in anchors(to.read_text("utf-8")):
            yield f"{path}: no heading for {target}"


def names(path: str, text: str) -> Iterator[str]:
    """Files by their place in the repository, anywhere; in backticks also by the end of it, as `loops/online.py`; and modules of ours."""
    prose = FENCED.sub("", text)
    for name in IN_A_FOLDER.findall(text):
        if not PLACEHOLDER.search(name) and not (ROOT / name.rstrip(".")).exists():
            yield f"{path}: there is no {name}"
    for name in filter(A_FILE.fullmatch, IN_TICKS.findall(prose)):
        own = PLACEHOLDER.search(name) or name in WRITTEN
        if not own and not any(file == name or file.endswith(f"/{name}") for file in FILES):
            yield f"{path}: there is no {name}"
    for dotted in OURS.findall(text):
        parts = dotted.strip(".").split(".")
        if parts[0] not in ikusei.__all__ and not is_ours(parts):
            yield f"{path}: there is no ikusei{dotted}"


def commands(path: str, text: str) -> Iterator[str]:
    for language, block in FENCED.findall(text):
        for line in re.split(r"\n| && | \|\| |; do ", block) if language in ("sh", "") else ():
            program = (line.split() or ["#"])[0].rpartition("/")[2]
            if language == "sh" and not program.startswith("#") and program not in PROGRAMS | SHELL:
                yield f"{path}: `{line}`: a program that is not checked; known: {', '.join(sorted(PROGRAMS))}"
            yield from (f"{path}: `{line.strip()}`: {problem}" for problem in problems_of(line, whole=True))
    for line in IN_TICKS.findall(FENCED.sub("", text)):
        yield from (f"{path}: `{line}`: {problem}" for problem in problems_of(line, whole=False))


@pytest.mark.parametrize("path", DOCUMENTS)
@pytest.mark.parametrize("says", [links, names, commands], ids=lambda each: each.__name__)
def test_a_document_holds(says: Says, path: str) -> None:
    problems = list(says(path, (ROOT / path).read_text("utf-8")))
    assert not problems, "\n" + "\n".join(problems)


BROKEN = [
    (links, "[here](nowhere.md)"),
    (links, "[here](README.md#no-such-heading)"),
    (links, "## One\n[here](#two)"),
    (names, "see tests/test_nothing.py"),
    (names, "`loops/nothing.py`"),
    (names, "`nothing.yaml`"),
    (names, "run `python -m ikusei.nothing`"),
    (names, "call `ikusei.nothing()`"),
    (commands, "```sh\n.venv/bin/ikusei trian quickstart\n```"),
    (commands, "```sh\nikusei check\n```"),
    (commands, "`ikusei compare A B --no-such-option`"),
    (commands, "```sh\nikusei train no_such_recipe\n```"),
    (commands, "`ikusei train recipes/quickstart.yaml train.stepz=3`"),
    (commands, "```sh\nmake nothing\n```"),
    (commands, "`python bench/nothing.py FOLDER`"),
    (commands, "```sh\npython -m pip install -e '.[nothing]'\n```"),
    (commands, "```sh\nrm -rf .\n```"),
]


@pytest.mark.parametrize(("says", "text"), BROKEN)
def test_each_check_bites(says: Says, text: str) -> None:
    assert len(list(says("README.md", text))) == 1


def test_the_page_of_the_house_names_every_room_on_its_floor() -> None:
    """A room's floor is the longest chain of rooms that it stands on."""

    @cache
    def floor(room: str) -> int:
        return 1 + max((floor(seen.partition(".")[0]) for seen in SEES.get(room, ())), default=0)

    told = {room: int(at) for at, room in re.findall(r"^\| (\d+) \| `(\w+)` \|", (ROOT / ARCHITECTURE).read_text("utf-8"), re.MULTILINE)}
    assert told == {room: floor(room) for room in SEES}


def test_the_way_of_a_prompt_names_functions_that_are_there() -> None:
    """Of each row `file.py` | `Class.function`."""
    ways = re.findall(r"^\| `([\w/]+\.py)` \| `([\w.]+)` \|", (ROOT / ARCHITECTURE).read_text("utf-8"), re.MULTILINE)
    assert len(ways) > 12
    for file, name in ways:
        body: list[ast.stmt] = ast.parse((ROOT / "src/ikusei" / file).read_text("utf-8")).body
        for part in name.split("."):
            found = [node for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == part]
            assert found, f"{file} has no {name}"
            body = found[0].body


def test_make_help_names_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    [phony] = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    told = re.findall(r"\bmake (\w+) ", makefile)
    assert sorted(["help", *told]) == sorted(phony.split())


# ------------------------------------------------------------------------------------------------------------------ how commands are read


def problems_of(line: str, whole: bool) -> Iterator[str]:
    """What is wrong with a line if it is a command. A command in running text, not `whole`, may leave out what it is given."""
    start = re.match(r"(?:\.venv/bin/)?(\w+)(?: |$)", line.strip())
    if start is None or start[1] not in PROGRAMS:
        return
    try:
        words = shlex.split(line, comments=True)[1:]
    except ValueError:  # an apostrophe: a sentence
        return
    yield from {"ikusei": of_ikusei, "make": of_make, "python": of_python, "pytest": of_pytest}.get(start[1], of_others)(words, whole)


def of_ikusei(words: list[str], whole: bool) -> Iterator[str]:
    try:
        command, bound, _ = app.parse_args(words, print_error=False, exit_on_error=False)
    except MissingArgumentError as error:
        if whole:
            yield str(error)
        return
    except CycloptsError as error:
        yield str(error)
        return
    recipes = {word for word in words if word.endswith(".yaml") and command.__name__ != "new"}
    asked = bound.arguments.get("recipe")
    recipes |= {str(asked)} if asked is not None and command.__name__ != "new" else set()
    for recipe in recipes:
        if PLACEHOLDER.search(recipe):
            continue
        try:
            document = document_of(find_recipe(recipe))
        except ValueError as error:
            yield str(error)
            continue
        given = [each for each in bound.arguments.get("overrides", ()) if not PLACEHOLDER.search(each.partition("=")[2])]
        if "stages" not in document.data and recipe == str(asked):
            try:
                read_document(document, given)
            except ValueError as error:
                yield str(error)


def of_make(words: list[str], whole: bool) -> Iterator[str]:
    targets = set(re.findall(r"^([a-z]\w*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    yield from (f"no target {word}" for word in words if word not in targets)


def of_python(words: list[str], whole: bool) -> Iterator[str]:
    if words[:2] == ["-m", "pip"]:
        yield from of_others(words[2:], whole)
    elif words[:1] == ["-m"] and not is_ours(words[1].split(".")[1:]):
        yield f"no module {words[1]}"
    elif words and words[0].endswith(".py") and not PLACEHOLDER.search(words[0]) and not (ROOT / words[0]).is_file():
        yield f"no file {words[0]}"


def of_pytest(words: list[str], whole: bool) -> Iterator[str]:
    yield from (f"no file {word}" for word in words if word.startswith("tests/") and not (ROOT / word.partition("::")[0]).exists())


def of_others(words: list[str], whole: bool) -> Iterator[str]:
    """pip: the extras that it is asked for."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    asked = {extra for word in words for extra in ",".join(re.findall(r"\[([\w,]+)\]", word)).split(",") if extra}
    yield from (f"no extra {extra}" for extra in sorted(asked - extras.keys()))


def is_ours(parts: list[str]) -> bool:
    """Whether ikusei.a.b is a module, or a name within one."""
    place = ROOT / "src" / "ikusei"
    return any((place / "/".join(parts[:n])).is_dir() or (place / f"{'/'.join(parts[:n])}.py").is_file() for n in range(1, len(parts) + 1))


def anchors(text: str) -> set[str]:
    """GitHub's names for the headings."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
