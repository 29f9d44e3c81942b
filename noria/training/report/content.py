"""The content of a report: everything that its page shows, as plain JSON data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from noria.core import to_iso
from noria.training.answers import Answers
from noria.training.evaluation import Evaluation, Trial
from noria.training.learner import rows_of
from noria.training.report.curves import confusion, curves, residuals
from noria.training.report.importance import learning_curve, native_importance, permutation_importance
from noria.training.report.page import page

JSON_FILE, PAGE_FILE = "report.json", "report.html"
FORMAT = 1


@dataclass(frozen=True)
class About:
    """What the version's record knows, too.

    Attributes:
        model: its name.
        description: of what it is.
        run: the run's id.
        made: when, in microseconds since 1970.
        parameters: the pipeline's definition, as plain JSON data.
        data: the tables' versions by name.
        features: the feature groups' definitions by name.
        code: versions of libraries, and the state of the project's code.
    """

    model: str
    description: str
    run: str
    made: int
    parameters: dict[str, Any]
    data: dict[str, str]
    features: dict[str, str]
    code: dict[str, str]


def files(about: About, trial: Trial, judged: Evaluation) -> dict[str, bytes]:
    """The report as files of the version."""
    made = content(about, trial, judged)
    return {JSON_FILE: msgspec.json.encode(made), PAGE_FILE: page(made).encode()}


def content(about: About, trial: Trial, judged: Evaluation) -> dict[str, Any]:
    """Everything that the page shows."""
    answers = judged.answers
    shown = rows_of(trial.frame.select(trial.inputs), trial.test)
    is_class = answers.has_classes and trial.metrics[0] in judged.values
    return {
        "format": FORMAT,
        **asdict(about),
        "made": to_iso(about.made),
        "seed": trial.seed,
        "metrics": list(trial.metrics),
        "evaluation": judged.to_dict(),
        "rows": {
            "train": int(trial.train.sum()),
            "test": int(trial.test.sum()),
            "neither": int((~(trial.train | trial.test)).sum()),
        },
        "period": {"train": _period(trial.times, trial.train), "test": _period(trial.times, trial.test)},
        "target": {"train": _target(answers, trial.target[trial.train]), "test": _target(answers, answers.truth)},
        "inputs": len(trial.inputs),
        "curves": curves(answers),
        "confusion": confusion(answers) if is_class else {},
        "residuals": {} if answers.has_classes else residuals(answers),
        "learning": learning_curve(trial.learned.estimator),
        "importance": permutation_importance(
            trial.learned, shown, answers.truth, trial.metrics[0], trial.seed, _seconds(len(shown))
        ),
        "native_importance": native_importance(trial.learned, shown),
    }


def _seconds(rows: int) -> float:
    """How long importances may take: a part of what fitting so many rows does."""
    return min(1.0, 0.15 + rows / 200_000)


def _period(times: NDArray[np.int64] | None, part: NDArray[np.bool_]) -> list[str] | None:
    if times is None or not part.any():
        return None
    return [to_iso(int(times[part].min())), to_iso(int(times[part].max()))]


def _target(answers: Answers, values: NDArray[Any]) -> dict[str, float]:
    """The classes' shares, of the ten most frequent; of numbers the mean and quartiles."""
    if not len(values):
        return {}
    if answers.has_classes:
        names, counts = np.unique(values, return_counts=True)
        order = np.argsort(-counts, kind="stable")[:10]
        return {str(names[at]): float(f"{counts[at] / len(values):.4g}") for at in order}
    numbers = np.asarray(values, np.float64)
    quartiles = np.quantile(numbers, [0.25, 0.5, 0.75])
    named = zip(("mean", "25 %", "median", "75 %"), (numbers.mean(), *quartiles), strict=True)
    return {name: float(f"{value:.5g}") for name, value in named}
