"""Tells at the end of every run, with -q and on several processes too, which tests were skipped and why: what was not checked is seen."""

from __future__ import annotations

from typing import Any


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = terminalreporter.stats.get("skipped", [])
    if reports:
        terminalreporter.section("skipped")
    for report in reports:
        reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else getattr(report, "wasxfail", str(report.longrepr))
        terminalreporter.write_line(f"{report.nodeid}: {reason.removeprefix('Skipped: ')}")
