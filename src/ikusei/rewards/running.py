"""Runs a Python program in its own process, and returns what it prints, with limits of time and bytes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from select import select
from tempfile import TemporaryFile

PYTHON = os.path.realpath(sys.executable)
MORE = 20_000  # bytes that it may print beyond what is asked for


def printed(source: str, given: str, wanted: int, until: float) -> list[str]:
    """The lines that a program prints, without the white space at their ends; none where it fails, prints too much or is not done by then.

    The program comes by a file that is gone: neither its arguments nor a path show what is asked after it.
    """
    limit, output = MORE + 4 * wanted, b""
    with TemporaryFile() as file, TemporaryFile() as read:
        file.write(source.encode("utf-8", "surrogatepass"))
        file.flush()
        read.write(given.encode())
        read.seek(0)
        start = f"import os; f = os.fdopen({file.fileno()}, 'rb'); f.seek(0); s = f.read(); f.close(); exec(compile(s, 'answer', 'exec'))"
        command = [PYTHON, "-I", "-S", "-c", start]
        process = subprocess.Popen(
            command, stdin=read, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, pass_fds=[file.fileno()], start_new_session=True
        )
        with process:
            assert process.stdout is not None, "asked for as a pipe"
            while len(output) <= limit and select([process.stdout], [], [], max(until - time.monotonic(), 0))[0]:
                piece = os.read(process.stdout.fileno(), 65536)
                if not piece:
                    break
                output += piece
            try:
                failed = process.wait(max(until - time.monotonic(), 0)) if len(output) <= limit else 1
            except subprocess.TimeoutExpired:
                failed = 1
            process.kill()
    return [] if failed else lines_of(output.decode("utf-8", "replace"))


def lines_of(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]
