"""training: from features and labels to a judged model.

A `ModelTrainingPipeline` joins each label with the features as of its time, splits the rows (`TimeSplit`,
`RandomSplit`), fits the steps and the estimator on the training part only, judges them on the other part beside a
baseline, and registers the version with all that is needed to answer and to train it again. The version leaves as a
servable: `POST /predict`, by entity ids or with the features in the body. `rebuild_dataset` makes what a version was
trained on again, bit for bit, and `reproduce` the version itself.
"""

from typing import TYPE_CHECKING

from noria.core.lazy import exports

if TYPE_CHECKING:
    from noria.training.dataset import Dataset, rebuild_dataset
    from noria.training.metrics import METRICS
    from noria.training.pipeline import ModelTrainingPipeline
    from noria.training.reproduction import Reproduction, reproduce
    from noria.training.splits import LeaveLastOut, RandomSplit, Split, TimeSplit

_ORIGIN = {
    "Dataset": "dataset",
    "LeaveLastOut": "splits",
    "METRICS": "metrics",
    "ModelTrainingPipeline": "pipeline",
    "RandomSplit": "splits",
    "Reproduction": "reproduction",
    "Split": "splits",
    "TimeSplit": "splits",
    "rebuild_dataset": "dataset",
    "reproduce": "reproduction",
}

__all__ = [
    "METRICS",
    "Dataset",
    "LeaveLastOut",
    "ModelTrainingPipeline",
    "RandomSplit",
    "Reproduction",
    "Split",
    "TimeSplit",
    "rebuild_dataset",
    "reproduce",
]

__getattr__ = exports(__name__, _ORIGIN)
