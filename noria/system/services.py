"""The serving end of the graph: the servers that answer with a system's models, and the balancer before them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from noria.core import Component

MODEL_KINDS = ("recommender", "training")
FEATURES_KIND = "features"


@dataclass(frozen=True)
class Service:
    """A component that runs as long as `noria serve` does."""

    name: str
    kind: str
    description: str
    dependencies: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def services(components: Sequence[Component]) -> tuple[Service, ...]:
    """The servers and the load balancer of a system that has models or feature groups; none otherwise."""
    models = tuple(part.name for part in components if part.kind in MODEL_KINDS)
    groups = tuple(part.name for part in components if part.kind == FEATURES_KIND)
    if not models and not groups:
        return ()
    what = [f"the champions of {', '.join(models)}"] if models else []
    what += [f"the features of {', '.join(groups)}"] if groups else []
    return (
        Service("model-server", "server", f"Answers with {' and '.join(what)}.", (*models, *groups)),
        Service("load-balancer", "gateway", "Spreads requests over the healthy servers.", ("model-server",)),
    )
