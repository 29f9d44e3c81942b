"""The peers' own Pythons: each in a virtual environment of its own, so that none has to bear another's versions."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from benchmarks.measure import environment

PEERS = Path(__file__).parents[1] / "peers" / "serving"
_SKLEARN = f"scikit-learn=={metadata.version('scikit-learn')}"  # the models are pickles
PACKAGES: dict[str, tuple[tuple[str, ...], str]] = {
    "fastapi": (
        ("fastapi", "uvicorn[standard]", "aiohttp", _SKLEARN, "lightgbm", "onnxruntime", "skl2onnx"),
        "fastapi, aiohttp, sklearn, lightgbm, onnxruntime, skl2onnx",
    ),
    "mosec": (("mosec", _SKLEARN), "mosec, sklearn"),
    "ray": (("ray[serve]", _SKLEARN), "ray.serve, sklearn"),
    "mlserver": (("mlserver", "mlserver-sklearn", _SKLEARN), "mlserver_sklearn"),
    "kserve": (("kserve", _SKLEARN), "kserve, sklearn"),
    "mlflow": (("mlflow", _SKLEARN), "mlflow.sklearn"),
    "litserve": (("litserve", _SKLEARN), "litserve, sklearn"),
    "bentoml": (("bentoml", _SKLEARN), "bentoml, sklearn"),
    "feast": (("feast==0.67.0", "fastapi", "uvicorn[standard]", _SKLEARN), "feast, fastapi, sklearn"),
}
"""The packages of each peer, and the modules that it must be able to import."""
_SHOWN = ("fastapi", "uvicorn", "uvloop", "mosec", "ray", "mlserver", "kserve", "mlflow", "litserve", "bentoml", "feast",
          "lightgbm", "onnxruntime", "scikit-learn", "numpy")  # fmt: skip


@dataclass(frozen=True)
class Peer:
    """A peer's environment; without a Python it can't be installed, and `why` says so."""

    name: str
    python: str | None
    why: str

    def program(self, name: str) -> str:
        """A command that its packages have installed."""
        return str(Path(self.python or "missing").parent / name)

    def call(self, script: str, *words: object) -> str:
        """Run one of the peers' scripts to its end; returns why it failed, or nothing."""
        if self.python is None:
            return self.why
        done = subprocess.run(
            [self.python, str(PEERS / script), *map(str, words)], capture_output=True, text=True, check=False
        )
        return f"{script}: {(done.stderr.strip() or '?').splitlines()[-1]}" if done.returncode else ""

    def versions(self) -> str:
        """What of its packages counts, with versions."""
        if self.python is None:
            return f"not installed ({self.why})"
        program = f"from importlib import metadata\nfor name in {_SHOWN}:\n  try: print(name, metadata.version(name))\n  except metadata.PackageNotFoundError: pass"
        done = subprocess.run([self.python, "-c", program], capture_output=True, text=True, check=True)
        return ", ".join(done.stdout.splitlines())


@cache
def peer(name: str) -> Peer:
    """A peer, installed if it isn't yet."""
    packages, modules = PACKAGES[name]
    python, why = environment(f"serve-{name}", packages, modules)
    return Peer(name, python, why and f"can't be installed: {why}")
