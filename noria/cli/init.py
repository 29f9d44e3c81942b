"""`noria init`: a new project folder from a template."""

from __future__ import annotations

import importlib
import shutil
import tempfile
from argparse import Namespace
from importlib import resources
from pathlib import Path

from noria.cli.show import out
from noria.core import ConfigError, allowed

TEMPLATES = ("recommender", "tabular")


def init(options: Namespace) -> int:
    """Write the folder and say what to do next."""
    folder = Path(options.name)
    write_project(folder, options.template)
    out(f"{folder}/ is ready: system.py, noria.toml, README.md and sample data.")
    out(f"next:  cd {folder} && noria run && noria serve")
    return 0


def write_project(folder: Path, template: str) -> None:
    """Make `folder` from a template, whole or not at all.

    Raises:
        ConfigError: the template is unknown, or the folder exists and isn't empty.
        MissingExtraError: the package with the sample data is not installed.
    """
    if template not in TEMPLATES:
        raise ConfigError(f"there is no template {template!r}", hint=allowed(TEMPLATES, template))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists already and is not empty", hint="choose another name, or remove it")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".noria-init-") as draft:
            made = Path(draft) / "project"
            _copy(template, made)
            importlib.import_module(f"noria.templates.{template}.data").write(made / "data")
            if folder.exists():
                folder.rmdir()
            made.replace(folder)
    except OSError as error:
        raise ConfigError(f"can't write the project to {folder}: {error}") from error


def _copy(template: str, folder: Path) -> None:
    folder.mkdir()
    with resources.as_file(resources.files("noria.templates") / template) as source:
        for file in ("system.py", "noria.toml", "README.md"):
            shutil.copyfile(source / file, folder / file)
