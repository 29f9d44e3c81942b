"""serving: answering requests with the right version.

A registered version comes in and becomes a `Servable` (load, warm up, answer a batch); `ModelServer` puts servables
behind HTTP: one asyncio protocol, in which all requests that arrive in one turn of the event loop are answered as one
batch. The server knows no model family; it serves whatever keeps the contract. Answers leave as JSON, mistakes as
problem documents (RFC 9457). A sample of the requests goes to the `PredictionLog`, with what was read to answer them.
"""

from typing import TYPE_CHECKING

from noria.core.lazy import exports

if TYPE_CHECKING:
    from noria.serving.access import Access
    from noria.serving.key_records import ApiKeys
    from noria.serving.key_ring import KeyRing
    from noria.serving.loading import load_servable
    from noria.serving.prediction_files import Prediction, PredictionReader
    from noria.serving.prediction_log import PredictionLog
    from noria.serving.servable import Servable, Traceable
    from noria.serving.server import Limits, ModelServer

_ORIGIN = {
    "Access": "access",
    "ApiKeys": "key_records",
    "KeyRing": "key_ring",
    "Limits": "server",
    "ModelServer": "server",
    "Prediction": "prediction_files",
    "PredictionLog": "prediction_log",
    "PredictionReader": "prediction_files",
    "Servable": "servable",
    "Traceable": "servable",
    "load_servable": "loading",
}

__all__ = [
    "Access",
    "ApiKeys",
    "KeyRing",
    "Limits",
    "ModelServer",
    "Prediction",
    "PredictionLog",
    "PredictionReader",
    "Servable",
    "Traceable",
    "load_servable",
]

__getattr__ = exports(__name__, _ORIGIN)
