"""Where a run comes from: commit, versions, machine. Read from package metadata, so nothing heavy is imported."""

from __future__ import annotations

import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = ("ikusei", "torch", "transformers", "tokenizers", "safetensors", "numpy", "math-verify", "reasoning-gym")


def provenance() -> dict[str, Any]:
    """The first lines of run.json that are the same for every recipe."""
    versions = {"python": platform.python_version()} | {package: installed(package) for package in PACKAGES}
    return {"git": git_state(), "machine": platform.platform(), "versions": versions}


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def git_state() -> dict[str, Any] | None:
    """The commit of the folder one works in, and whether files differ from it; None outside a repository."""
    if shutil.which("git") is None:
        return None
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True)
    return {"commit": commit.stdout.strip(), "changed": bool(changed.stdout.strip())} if commit.returncode == 0 else None
