"""testing: conformance suites that a plug-in can run on itself, and a clock that tests drive.

A suite is a class of pytest tests: subclass it, say how yours is made, and pytest runs every check of the contract
against it. noria's own backends, steps, splits, retrievers and servables pass the same suites.
"""

from typing import TYPE_CHECKING

from noria.core.lazy import exports

if TYPE_CHECKING:
    from noria.testing.blobs import BlobStoreConformance
    from noria.testing.clock import ManualClock
    from noria.testing.online import OnlineStoreConformance
    from noria.testing.records import RecordsConformance
    from noria.testing.retriever import RetrieverConformance
    from noria.testing.servable import ServableConformance
    from noria.testing.split import SplitConformance
    from noria.testing.step import StepConformance
    from noria.testing.tables import TableConformance

_ORIGIN = {
    "BlobStoreConformance": "blobs",
    "ManualClock": "clock",
    "OnlineStoreConformance": "online",
    "RecordsConformance": "records",
    "RetrieverConformance": "retriever",
    "ServableConformance": "servable",
    "SplitConformance": "split",
    "StepConformance": "step",
    "TableConformance": "tables",
}

__all__ = [
    "BlobStoreConformance",
    "ManualClock",
    "OnlineStoreConformance",
    "RecordsConformance",
    "RetrieverConformance",
    "ServableConformance",
    "SplitConformance",
    "StepConformance",
    "TableConformance",
]

__getattr__ = exports(__name__, _ORIGIN)
