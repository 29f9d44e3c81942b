"""From a registered version to something that answers: the version names its servable, an entry point loads it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points

from noria.core import ConfigError, allowed
from noria.registry import ModelVersion
from noria.serving.servable import Servable
from noria.storage import Workspace

GROUP = "noria.servables"


def load_servable(version: ModelVersion, workspace: Workspace) -> Servable:
    """Load a version's verified files into a servable.

    A loader is a function `load(version, workspace) -> Servable`, named among the entry points `noria.servables`
    of any installed package, so that the server knows no model family.

    Raises:
        ConfigError: no installed package has that loader.
        IntegrityError: a file is not what was registered.
    """
    points = entry_points(group=GROUP)
    if version.servable not in points.names:
        raise ConfigError(
            f"model {version.label} needs the servable {version.servable!r}, which no installed package provides",
            hint=allowed(points.names, version.servable),
        )
    load: Callable[[ModelVersion, Workspace], Servable] = points[version.servable].load()
    return load(version, workspace)
