"""`noria models export` and `noria models import`: models to MLflow's format and back, and from ONNX."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from noria.cli.project import load_system
from noria.cli.show import out
from noria.core import Settings
from noria.registry import ModelRegistry
from noria.storage import Workspace


def export(options: Namespace) -> int:
    """Write a version as a model directory of MLflow's."""
    from noria.training.mlflow_model import export_version

    with Workspace.open(Settings.load(options.project)) as workspace:
        version = ModelRegistry.of(workspace).get(options.label)
        folder = export_version(workspace, version, Path(options.folder))
    out(f"{version.label} is in {folder}; try: mlflow models serve -m {folder} --env-manager local")
    if version.spec["groups"] or version.spec.get("on_demand"):
        out("  it takes all its inputs as columns: features aren't looked up or computed there")
    return 0


def import_model(options: Namespace) -> int:
    """Register a model directory of MLflow's, or a file in ONNX, as a version."""
    from noria.training.foreign import import_onnx
    from noria.training.mlflow_model import import_model as import_mlflow

    path = Path(options.path)
    with Workspace.open(Settings.load(options.project)) as workspace:
        version = (import_onnx if path.suffix == ".onnx" else import_mlflow)(workspace, path, options.name)
    out(f"{path} is {version.label}; to answer with it: noria models promote {version.label}")
    if not _is_served(options.project, version.name):
        out(f"  servers answer with the models of system.py, and it has no {version.name}; `noria predict` does")
    return 0


def _is_served(project: str, name: str) -> bool:
    if not (Path(project) / "system.py").exists():
        return True  # nobody knows
    return name in {part.name for part in load_system(project).components}
