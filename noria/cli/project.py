"""Finding and loading the user's project."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path

from noria.cli.show import result_apart
from noria.core import ConfigError, NoriaError
from noria.system import System


def load_system(folder: str | Path) -> System:
    """The object `system` of the folder's `system.py`.

    Raises:
        ConfigError: there is no such file, it can't be run, or it defines no `system`.
    """
    file = Path(folder).resolve() / "system.py"
    if not file.exists():
        raise ConfigError(
            f"there is no system.py in {file.parent}",
            hint="change to a project's folder, name it with --project DIR, or make one: noria init NAME",
        )
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))  # so that system.py may import modules beside it
    spec = importlib.util.spec_from_file_location("system", file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{file} can't be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules["system"] = module
    try:
        with result_apart():
            spec.loader.exec_module(module)
    except NoriaError as error:
        error.message = f"{_place(error, file)}: {error.message}"
        raise
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{_place(error, file)}: there is no module {error.name!r} in {sys.prefix}",
            hint="is it spelled so, and installed where noria is?",
        ) from error
    except Exception as error:
        raise ConfigError(f"{_place(error, file)}: {type(error).__name__}: {error}") from error
    system = getattr(module, "system", None)
    if not isinstance(system, System):
        raise ConfigError(f"{file} defines no system", hint='end it with: system = nr.System("name", [ … ])')
    return system


def _place(error: Exception, file: Path) -> str:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    if isinstance(error, SyntaxError) and error.filename == str(file):
        lines.append(error.lineno)
    return f"{file}:{lines[-1]}" if lines else str(file)
