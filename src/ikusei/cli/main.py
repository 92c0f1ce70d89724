"""The program `ikusei`, and the list of its commands.

Exit codes: 0 done, 1 the run failed, 2 the input is not right, 3 paused by the watch, 130 interrupted.
Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import sys

from cyclopts import App, CycloptsError

from ikusei import __version__
from ikusei.cli.common import err

COMMANDS = {  # by name, the function; its file is imported when the command, or the help of all of them, is asked for
    "new": "train:new",
    "check": "train:check",
    "train": "train:train",
    "runs": "train:runs",
    "eval": "evaluate:eval_",
    "compare": "evaluate:compare",
    "sample": "chat:sample",
    "chat": "chat:chat",
    "score": "chat:score",
    "scale": "scale:scale",
    "lens": "lens:lens_",
    "reward": "reward:reward",
    "reproduce": "reproduce:reproduce",
}

app = App(name="ikusei", help="Raise a language model, from raw text to a model people want to use.", version=__version__)
for name, place in COMMANDS.items():
    app.command(f"ikusei.cli.{place}", name=name)


def main(words: list[str] | None = None) -> None:
    """The program `ikusei`."""
    first = (sys.argv[1:] if words is None else words)[:1]
    for name in COMMANDS if first in ([], ["--help"], ["-h"]) else ():
        _ = app[name]  # imports it: its line of help stands in its docstring
    try:
        code = app(words, exit_on_error=False, result_action="return_value")
    except CycloptsError:  # already explained by cyclopts
        code = 2
    except ValueError as error:
        err.print("[bold red]error:[/] ", end="")
        err.print(str(error), markup=False, highlight=False, soft_wrap=True)
        code = 2
    except KeyboardInterrupt:
        code = 130
    sys.exit(code or 0)
