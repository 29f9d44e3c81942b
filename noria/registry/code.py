"""The state of the code that a model was trained by."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

_LIBRARIES = ("noria", "numpy", "polars", "scikit-learn", "scipy", "numba")
_LEARNERS = ("lightgbm", "xgboost", "xgboost-cpu", "catboost", "torch")


def code_state(root: Path) -> dict[str, str]:
    """Git commit of the project's folder (where it is one), digest of `system.py`, versions of the libraries.

    Of those that teach models, the ones that this process has loaded.
    """
    state = {"python": platform.python_version()}
    loaded = [library for library in _LEARNERS if library.removesuffix("-cpu") in sys.modules]
    for library in (*_LIBRARIES, *loaded):
        try:
            state[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    system = root / "system.py"
    if system.exists():
        state["system"] = hashlib.sha256(system.read_bytes()).hexdigest()[:16]
    commit = _git(root, "rev-parse", "HEAD")
    if commit:
        state["git"] = commit + ("+changes" if _git(root, "status", "--porcelain", "--", ".") else "")
    return state


def _git(root: Path, *words: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
