"""The serving end of the graph: the servers that answer with a system's models, and the balancer before them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from noria.core import Component

MODEL_KINDS = ("recommender", "training")


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
    """The servers and the load balancer of a system that has models; none otherwise."""
    models = tuple(part.name for part in components if part.kind in MODEL_KINDS)
    if not models:
        return ()
    return (
        Service("model-server", "server", f"Answers with the champions of {', '.join(models)}.", models),
        Service("load-balancer", "gateway", "Spreads requests over the healthy servers.", ("model-server",)),
    )
