"""A test that is skipped is named at the end of the run, with its reason."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parent / "conftest.py"
MARKED = """
import pytest

@pytest.mark.skip(reason="the moon is full")
def test_wolf(): ...

def test_owl():
    if True:
        pytest.skip("it is day")

def test_sheep(): ...
"""
WITHOUT = """
import pytest

pytest.importorskip("no_such_package", reason="no_such_package is not installed; install it")

def test_nothing(): ...
"""


@pytest.mark.parametrize("how", [["-q"], ["-qq"], ["-q", "-n", "2"]], ids=" ".join)
def test_skipped_tests_are_named_with_their_reasons(tmp_path: Path, how: list[str]) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST.read_text("utf-8"), "utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_marked.py").write_text(MARKED)
    (tmp_path / "test_without.py").write_text(WITHOUT)
    done = subprocess.run([sys.executable, "-m", "pytest", *how], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    told = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_marked.py::test_wolf: the moon is full" in told
    assert "test_marked.py::test_owl: it is day" in told
    assert "test_without.py: no_such_package is not installed; install it" in told
    assert "test_sheep" not in done.stdout
