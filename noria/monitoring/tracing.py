"""Tracing a recorded prediction to the model that made it and to the versions of the features that it read."""

from __future__ import annotations

from typing import Any

import msgspec

from noria.core import NoriaError, to_iso
from noria.features.catalog import Catalog
from noria.registry import ModelRegistry
from noria.serving.prediction_files import Prediction
from noria.storage import Workspace


def traced(one: Prediction, workspace: Workspace) -> dict[str, Any]:
    """The prediction, and what the project knows of its model and definitions."""
    made: dict[str, Any] = {**msgspec.to_builtins(one), "at": to_iso(one.at)}
    catalog = Catalog(workspace.records, workspace.clock)
    labels = {version.spec.place: version.label for read in one.groups for version in catalog.versions(read.group)}
    made["groups"] = [
        {
            **msgspec.to_builtins(read),
            "version": labels.get(read.place),
            "as_of": None if read.as_of is None else to_iso(read.as_of),
            "event_times": [None if time is None else to_iso(time) for time in read.event_times],
        }
        for read in one.groups
    ]
    if one.model is not None:
        try:
            version = ModelRegistry.of(workspace).get(f"{one.model}@{one.version}")
            made["registered"] = {
                "at": to_iso(version.created),
                "run": version.run_id,
                "data": version.lineage.data,
                "metrics": version.metrics,
            }
        except NoriaError:  # of another project's registry, say: the rest can be told all the same
            made["registered"] = None
    return made
