"""Answering `POST /recommend` with a registered recommender."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from noria.core import NoriaError
from noria.core.bodies import decode
from noria.recommender.artifact import load as load_files
from noria.recommender.interactions import Interactions, positions
from noria.recommender.ranking import top_k
from noria.recommender.retriever import FittedRetriever
from noria.recommender.retrievers import retriever_from_dict
from noria.registry import ModelRegistry, ModelVersion
from noria.storage import Workspace

MAX_K = 1000
"""The most items that one request may ask for."""

_K = Annotated[int, msgspec.Meta(ge=1, le=MAX_K, description="how many items")]
_INT = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class Item(msgspec.Struct):
    """One recommended item."""

    item_id: int | str
    score: float


class Answer(msgspec.Struct, omit_defaults=True):
    """A response; `cold` when the user is unknown and the items are the popular ones."""

    items: list[Item]
    model: str
    version: int
    cold: bool = False


class RecommenderServable:
    """Keeps the `Servable` contract for a trained recommender."""

    operations = ("recommend",)

    def __init__(
        self,
        model: str,
        version: int,
        interactions: Interactions,
        fitted: FittedRetriever,
        popular: NDArray[np.int32],
    ) -> None:
        self.model = model
        self.version = version
        self._known = interactions
        self._fitted = fitted
        self._popular = popular
        self._ids: list[Any] = interactions.item_ids.tolist()
        kind = str if interactions.user_ids.dtype.kind == "U" else _INT
        self._type = msgspec.defstruct(
            "RecommendRequest", [("user_id", kind), ("k", _K, 10)], forbid_unknown_fields=True
        )
        self._decoder = msgspec.json.Decoder(self._type)

    def decode(self, operation: str, body: bytes) -> Any:
        return decode(self._decoder, body)

    def entities(self, operation: str, request: Any) -> Sequence[str]:
        return (str(request.user_id),)

    def answer(self, operation: str, requests: Sequence[Any]) -> Sequence[Answer | NoriaError]:
        users = positions(self._known.user_ids, [request.user_id for request in requests])
        warm = np.flatnonzero(users >= 0)
        best: dict[int, Answer] = {}
        if len(warm):
            asked = users[warm]
            seen = self._known.by_user()
            most = min(max(requests[at].k for at in warm.tolist()), self._known.n_items)
            items, scores = top_k(self._fitted.score(asked), seen.indptr, seen.indices, asked, most)
            for row, at in enumerate(warm.tolist()):
                best[at] = self._warm(items[row].tolist(), scores[row].tolist(), requests[at].k)
        return [best.get(at) or self._cold(request.k) for at, request in enumerate(requests)]

    def _warm(self, items: list[int], scores: list[float], k: int) -> Answer:
        best = [Item(self._ids[item], score) for item, score in zip(items[:k], scores[:k], strict=True) if item >= 0]
        return Answer(best, self.model, self.version)

    def _cold(self, k: int) -> Answer:
        # The score of a popular item is its rank's: there is no prediction for a user of whom nothing is known.
        best = [Item(self._ids[item], 1.0 / rank) for rank, item in enumerate(self._popular[:k].tolist(), 1)]
        return Answer(best, self.model, self.version, cold=True)

    def warm_up(self) -> None:
        self.answer("recommend", [self._type(user_id=user) for user in self._known.user_ids[:2].tolist()])

    def describe(self, operation: str) -> dict[str, Any]:
        (request, response), parts = msgspec.json.schema_components(
            [self._type, Answer], ref_template="#/components/schemas/{name}"
        )
        return {
            "request": request,
            "response": response,
            "components": parts,
            "example": {"user_id": self._known.user_ids[0].item(), "k": 10},
        }

    def close(self) -> None:
        """Nothing to let go: the arrays are mapped files."""


def load(version: ModelVersion, workspace: Workspace) -> RecommenderServable:
    """The loader that the entry point `recommender` names."""
    interactions, arrays, popular = load_files(ModelRegistry.of(workspace).files(version))
    spec: Mapping[str, Any] = version.spec["retriever"]
    fitted = retriever_from_dict(spec).restore(arrays, interactions)
    return RecommenderServable(version.name, version.version, interactions, fitted, popular)
