"""training: from features and labels to a judged model.

A `ModelTrainingPipeline` joins each label with the features as of its time, splits the rows (`TimeSplit`,
`GroupSplit`, …), looks for leakage, fits the steps and the estimator on the training part only, with what the
estimator's library needs of text and gaps, judges them on the other part beside baselines, and registers the version
with all that is needed to answer and to train it again. The version leaves as a servable: `POST /predict`, by entity
ids or with the features in the body. `rebuild_dataset` makes what a version was trained on again, bit for bit, and
`reproduce` the version itself.
"""

from typing import TYPE_CHECKING

from noria.core.lazy import exports

if TYPE_CHECKING:
    from noria.training.dataset import Dataset, rebuild_dataset
    from noria.training.metrics import METRICS
    from noria.training.pipeline import ModelTrainingPipeline
    from noria.training.reproduction import Reproduction, reproduce
    from noria.training.slices import by_day, by_month, by_week
    from noria.training.splits import GroupSplit, RandomSplit, Split, StratifiedSplit
    from noria.training.time_splits import LeaveLastOut, RollingSplit, TimeSplit
    from noria.training.torch_module import TorchModule
    from noria.training.weights import recency

_ORIGIN = {
    "Dataset": "dataset",
    "GroupSplit": "splits",
    "LeaveLastOut": "time_splits",
    "METRICS": "metrics",
    "ModelTrainingPipeline": "pipeline",
    "RandomSplit": "splits",
    "Reproduction": "reproduction",
    "RollingSplit": "time_splits",
    "Split": "splits",
    "StratifiedSplit": "splits",
    "TimeSplit": "time_splits",
    "TorchModule": "torch_module",
    "by_day": "slices",
    "by_month": "slices",
    "by_week": "slices",
    "rebuild_dataset": "dataset",
    "recency": "weights",
    "reproduce": "reproduction",
}

__all__ = [
    "METRICS",
    "Dataset",
    "GroupSplit",
    "LeaveLastOut",
    "ModelTrainingPipeline",
    "RandomSplit",
    "Reproduction",
    "RollingSplit",
    "Split",
    "StratifiedSplit",
    "TimeSplit",
    "TorchModule",
    "by_day",
    "by_month",
    "by_week",
    "rebuild_dataset",
    "recency",
    "reproduce",
]

__getattr__ = exports(__name__, _ORIGIN)
