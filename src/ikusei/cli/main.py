"""The program `ikusei`, and the list of its commands.

Exit codes: 0 done, 1 the run failed, 2 the input is not right, 3 paused by the watch, 130 interrupted.
Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import sys

from cyclopts import App, CycloptsError

from ikusei import __version__
from ikusei.cli.chat import chat, sample, score
from ikusei.cli.common import err
from ikusei.cli.evaluate import compare, eval_
from ikusei.cli.lens import lens_
from ikusei.cli.reproduce import reproduce
from ikusei.cli.reward import reward
from ikusei.cli.scale import scale
from ikusei.cli.train import check, new, runs, train

COMMANDS = (new, check, train, runs, eval_, compare, sample, chat, score, scale, lens_, reward, reproduce)  # each by its function's name

app = App(name="ikusei", help="Raise a language model, from raw text to a model people want to use.", version=__version__)
for command in COMMANDS:
    app.command(command)


def main(words: list[str] | None = None) -> None:
    """The program `ikusei`."""
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
