"""Which path asks which model for what; worked out anew whenever a model changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from noria.serving.servable import Servable
from noria.serving.served import Served

Target = tuple[str, Served, str, int | None]
"""The route's name in metrics, the model, the operation, and the version if the path names one."""


@dataclass(frozen=True)
class Routes:
    """The paths of operations.

    Attributes:
        operations: path to target.
        several: short paths that several models could answer, and those models.
        alone: for each operation that one model alone offers, who answers its short path.
    """

    operations: Mapping[bytes, Target]
    several: Mapping[bytes, list[str]]
    alone: Mapping[str, Servable]

    @staticmethod
    def of(models: Iterable[Served]) -> Routes:
        """`/models/NAME/predict`, `/models/NAME/versions/3/predict`, and `/predict` where that says enough."""
        found: dict[bytes, Target] = {}
        offers: dict[str, list[Served]] = {}
        for model in models:
            for operation in model.control.operations:
                offers.setdefault(operation, []).append(model)
                found[f"/models/{model.name}/{operation}".encode()] = (f"/{operation}", model, operation, None)
            for version, servable in model.versions.items():
                for operation in servable.operations:
                    path = f"/models/{model.name}/versions/{version}/{operation}"
                    found[path.encode()] = (f"/{operation}", model, operation, version)
        several = {f"/{o}".encode(): [model.name for model in offered] for o, offered in offers.items() if offered[1:]}
        alone = {operation: offered[0] for operation, offered in offers.items() if not offered[1:]}
        found |= {f"/{o}".encode(): (f"/{o}", model, o, None) for o, model in alone.items()}
        return Routes(found, several, {operation: model.control for operation, model in alone.items()})
