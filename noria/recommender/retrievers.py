"""The retrievers by name, as installed packages offer them: what a model version's spec is turned back into."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from noria.core import ConfigError, allowed
from noria.recommender.retriever import Retriever

GROUP = "noria.retrievers"


def retriever_from_dict(spec: Mapping[str, Any]) -> Retriever:
    """The reverse of a retriever's `to_dict`.

    Raises:
        ConfigError: no installed package offers a retriever of that name among its entry points.
    """
    options = dict(spec)
    name = options.pop("name")
    points = entry_points(group=GROUP)
    if name not in points.names:
        raise ConfigError(
            f"there is no retriever {name!r} among the entry points {GROUP}", hint=allowed(points.names, name)
        )
    made: Retriever = points[name].load()(**options)
    return made
