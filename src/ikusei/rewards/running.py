"""Runs a Python program in its own process and returns its output, with limits on time and output size."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from select import select
from tempfile import TemporaryFile

PYTHON = os.path.realpath(sys.executable)
MORE = 20_000  # output bytes allowed beyond the expected output


def printed(source: str, given: str, wanted: int, until: float) -> list[str]:
    """The lines that a program prints, without trailing white space; none where it fails, prints too much or runs past `until`.

    `given` is its stdin, `wanted` the number of expected characters. The source is read from an unnamed temporary file, so that the program
    cannot find the test calls at its end in its arguments or under a path.
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
            assert process.stdout is not None, "stdout is a pipe"
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
