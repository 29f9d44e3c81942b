"""recommender: the flagship application, built only from the other rooms.

Events come in as a table of who chose what when. Retrievers (`ALS`, `ItemKNN`, `Popular`) learn from the positive
ones, are judged on the newest part of time with every item ranked, and the best one is registered with the users,
items and histories that it needs. It leaves as a servable: `POST /recommend` with seen items left out, and popular
items for users of whom nothing is known.
"""

from typing import TYPE_CHECKING

from noria.core.lazy import exports

if TYPE_CHECKING:
    from noria.recommender.als import ALS
    from noria.recommender.evaluation import Interval, evaluate
    from noria.recommender.interactions import Interactions
    from noria.recommender.item_knn import ItemKNN
    from noria.recommender.popular import Popular
    from noria.recommender.ranking import top_k
    from noria.recommender.retriever import FittedRetriever, Retriever
    from noria.recommender.system import RecommenderSystem

_ORIGIN = {
    "ALS": "als",
    "FittedRetriever": "retriever",
    "Interactions": "interactions",
    "Interval": "evaluation",
    "ItemKNN": "item_knn",
    "Popular": "popular",
    "RecommenderSystem": "system",
    "Retriever": "retriever",
    "evaluate": "evaluation",
    "top_k": "ranking",
}

__all__ = [
    "ALS",
    "FittedRetriever",
    "Interactions",
    "Interval",
    "ItemKNN",
    "Popular",
    "RecommenderSystem",
    "Retriever",
    "evaluate",
    "top_k",
]

__getattr__ = exports(__name__, _ORIGIN)
