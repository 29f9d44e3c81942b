"""A version made again: its rows rebuilt, its estimator fitted again, and both held against what was registered.

`reproduce` needs the registry and the tables alone. Where they don't say all (an estimator with a function among its
parameters), `system.py` has to, if what it says of this model is still what it said then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import DataError, NoProgress, NoriaError, Progress, Schema, task
from noria.registry import ModelRegistry, ModelVersion, code_state
from noria.storage import Workspace
from noria.training.dataset import PART, TARGET, Dataset, rebuild_dataset
from noria.training.estimator import FILE, Estimator, dump
from noria.training.evidence import TABULAR, answers
from noria.training.fitting import Examples, fit
from noria.training.learner import Learned, Lesson, fit_once
from noria.training.metrics import METRICS, judge
from noria.training.pipeline import ModelTrainingPipeline
from noria.training.remembered import ESTIMATOR, GATES, SEED, KnownStep, made_estimator, made_steps
from noria.training.servable import TabularServable
from noria.training.servable import load as load_servable

_KNOWN = frozenset(
    (ESTIMATOR, SEED, GATES, "kind", "name", "labels", "target", "features", "model", "steps", "split", "metrics")
) | {"evaluation", "leakage", "notes"}
"""The parts of a version's parameters that fitting again from the registry takes into account, or that don't matter."""
_RESAMPLES = 200
_MOST = 10_000
"""Of the bootstrap: how many resamples, of how many rows at most."""


@dataclass(frozen=True)
class Refound:
    """A metric: as registered, as it is now, and the 95 % interval of the registered one, if that is of any use."""

    then: float
    now: float
    low: float | None = None
    high: float | None = None

    @property
    def fits(self) -> bool:
        """Whether chance explains the difference."""
        if self.low is None or self.high is None:
            return self.now == self.then
        return self.low <= self.now <= self.high or self.now == self.then


@dataclass(frozen=True)
class Reproduction:
    """What came of it.

    Attributes:
        label: of the version.
        outcome: `identical`: every prediction has the registered one's bits. `equivalent`: some haven't, which the
            estimator's own randomness or moved libraries explain, and all metrics are within their intervals.
            `different`: else.
        source: `registry`, or `system.py` where that had to say what to fit.
        rows: of the training set, which is the same bit for bit.
        digest: of the training set.
        changed: rows with another prediction or score.
        largest: the largest difference between two scores, or predictions that are numbers.
        same_file: whether the model's file has the same bytes.
        metrics: by name.
        libraries: those that aren't what they were: name to then and now.
        notes: what else should be known.
    """

    label: str
    outcome: Literal["identical", "equivalent", "different"]
    source: str
    rows: int
    digest: str
    changed: int
    largest: float
    same_file: bool
    metrics: dict[str, Refound] = field(default_factory=dict)
    libraries: dict[str, tuple[str, str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON data."""
        return asdict(self)


def reproduce(
    workspace: Workspace,
    version: ModelVersion | str,
    *,
    pipeline: ModelTrainingPipeline | None = None,
    progress: Progress | None = None,
) -> Reproduction:
    """Make a version again, and compare.

    Args:
        workspace: the stores.
        version: a version, or its label.
        pipeline: as `system.py` defines it now; asked only where the registry doesn't say all.
        progress: shown what is going on.

    Raises:
        NotFoundError: there is no such version, or a table's version is gone.
        IntegrityError: the rows aren't those that the version was trained on; the error says what changed.
        DataError: neither the registry nor the pipeline can say what to fit.
    """
    if isinstance(version, str):
        version = ModelRegistry.of(workspace).get(version)
    if version.servable != TABULAR:
        raise DataError(
            f"{version.label} is a {version.servable}, and only tabular models can be made again",
            hint=f"its rows can: noria models dataset {version.label}",
        )
    progress = progress or NoProgress()
    with task(progress, f"{version.label}: rebuild the training set"):
        dataset = rebuild_dataset(workspace, version)
    with task(progress, f"{version.label}: fit again"):
        seed = int(version.parameters.get(SEED, workspace.settings.run.seed))
        learned, source, notes = _again(version, dataset, pipeline, seed)
    with task(progress, f"{version.label}: compare"):
        then = answers(load_servable(version, workspace), dataset.frame)
        now = _answers(version, learned, dataset.frame)
        is_random = False
        if _difference(then, now)[0] and _is_unseeded(learned.estimator):
            third = _answers(version, _again(version, dataset, pipeline, seed)[0], dataset.frame)
            is_random = _difference(now, third)[0] > 0
            notes += ["its random_state is None, and two fits of it differ by themselves"] if is_random else []
        return _compared(workspace, version, dataset, learned, source, notes, then, now, is_random)


def _again(
    version: ModelVersion, dataset: Dataset, pipeline: ModelTrainingPipeline | None, seed: int
) -> tuple[Learned, str, list[str]]:
    """The model fitted again, who said how, and what should be known about that."""
    try:
        return *_from_registry(version, dataset, seed), []
    except NoriaError as error:
        reason = error.message
    if pipeline is None:
        raise DataError(
            f"{version.label} can't be fitted again from the registry alone: {reason}",
            hint="call it in the project whose system.py defines this model",
        )
    said = pipeline.to_dict()
    others = [name for name, value in said.items() if version.parameters.get(name) != value]
    if others:
        raise DataError(
            f"{version.label} can't be fitted again: {reason}; and system.py says otherwise now: {', '.join(others)}",
            hint=f"check out system.py as it was: {version.lineage.code.get('git', 'its git commit is not known')}",
        )
    frame = dataset.frame
    times = _times(version, frame)
    examples = Examples(frame, frame.select(pipeline.input_schema().names), frame[TARGET].to_numpy(), times, 0)
    return fit(pipeline, examples, seed).learned, "system.py", [f"system.py said what to fit: {reason}"]


def _from_registry(version: ModelVersion, dataset: Dataset, seed: int) -> tuple[Learned, str]:
    kept = version.parameters
    if ESTIMATOR not in kept:
        raise DataError("it was registered before estimators were kept")
    unknown = sorted(name for name, value in kept.items() if name not in _KNOWN and value not in (None, [], {}, False))
    if unknown:
        raise DataError(f"its definition has {', '.join(unknown)}")
    estimator = made_estimator(kept[ESTIMATOR])
    frame, schema = dataset.frame, Schema.of(version.spec["inputs"])
    lesson = Lesson(
        frame.select(schema.names),
        frame[TARGET].to_numpy(),
        schema,
        steps=made_steps(kept.get("steps", ()), version.spec["steps"]),
        metric=str(kept["metrics"][0]) if kept.get("metrics") else "",
        seed=seed,
        times=_times(version, frame),
    )
    return fit_once(estimator, lesson.part(_part(frame, "train"))), "registry"


def _times(version: ModelVersion, frame: pl.DataFrame) -> NDArray[np.int64] | None:
    time = version.lineage.dataset["time"]
    return None if time is None else frame[time].dt.timestamp("us").to_numpy().astype(np.int64)


def _part(frame: pl.DataFrame, part: str) -> NDArray[np.bool_]:
    return (frame[PART] == part).fill_null(False).to_numpy()


_Answered = tuple[NDArray[Any], NDArray[np.float64] | None]


def _answers(version: ModelVersion, learned: Learned, frame: pl.DataFrame) -> _Answered:
    """What the model that was fitted again says, by the same code as a server."""
    columns = version.spec["columns"]
    return answers(TabularServable(version, learned.estimator, learned.inputs, None, {}, columns), frame)


def _compared(
    workspace: Workspace,
    version: ModelVersion,
    dataset: Dataset,
    learned: Learned,
    source: str,
    notes: list[str],
    then: _Answered,
    now: _Answered,
    is_random: bool,
) -> Reproduction:
    frame = dataset.frame
    changed, largest = _difference(then, now)
    metrics = _metrics(version, frame, then, now, int(version.parameters.get(SEED, 0)))
    libraries = _moved(version, code_state(workspace.settings.root))
    known = [str(step.to_dict()["step"]) for step in _known_steps(version)]
    if known and source == "registry":
        notes = [*notes, f"steps with expressions were taken as they were fitted: {', '.join(known)}"]
    fits = all(one.fits for one in metrics.values())
    outcome: Literal["identical", "equivalent", "different"] = "different"
    if changed == 0:
        outcome = "identical"
    elif fits and (is_random or libraries):
        outcome = "equivalent"
    file = version.files.get(FILE)
    same_file = file is not None and hashlib.sha256(dump(learned.estimator)).hexdigest() == file.digest
    return Reproduction(
        version.label, outcome, source, len(frame), dataset.digest, changed, largest, same_file, metrics, libraries,
        tuple(notes),
    )  # fmt: skip


def _known_steps(version: ModelVersion) -> list[KnownStep]:
    found = made_steps(version.parameters.get("steps", ()), version.spec["steps"])
    return [step for step in found if isinstance(step, KnownStep)]


def _difference(then: _Answered, now: _Answered) -> tuple[int, float]:
    """How many rows have another answer, and by how much at most."""
    other = np.zeros(len(then[0]), np.bool_)
    largest = 0.0
    for before, after in zip(then, now, strict=True):
        if before is None or after is None:
            other |= (before is None) != (after is None)
            continue
        if before.dtype.kind == "f" and after.dtype.kind == "f":
            different = (before.view(np.int64) != after.view(np.int64)) & ~(np.isnan(before) & np.isnan(after))
            gaps = np.abs(before - after)[different]
            largest = max(largest, float(np.nanmax(gaps, initial=0.0)) if len(gaps) else 0.0)
        else:
            different = before != after
        other |= different
    return int(other.sum()), largest


def _metrics(
    version: ModelVersion, frame: pl.DataFrame, then: _Answered, now: _Answered, seed: int
) -> dict[str, Refound]:
    test = _part(frame, "test")
    truth = frame[TARGET].to_numpy()[test]
    (old, old_scores), (new, new_scores) = (
        (predicted[test], None if scores is None else scores[test]) for predicted, scores in (then, now)
    )
    same = _difference((old, old_scores), (new, new_scores))[0] == 0
    kept: Mapping[str, Any] = (version.parameters.get("evaluation") or {}).get("metrics") or {}
    found = {}
    for name, registered in version.metrics.items():
        if name not in METRICS or (METRICS[name].needs_scores and (old_scores is None or new_scores is None)):
            continue
        value = float(registered[0] if isinstance(registered, list) else registered)
        known = kept.get(name, {})
        low, high = known.get("low"), known.get("high")
        if (low is None or high is None) and not same:
            low, high = _interval(name, truth, old, old_scores, seed)
        found[name] = Refound(value, float(judge((name,), truth, new, new_scores)[name]), low, high)
    return found


def _interval(
    name: str, truth: NDArray[Any], predicted: NDArray[Any], scores: NDArray[np.float64] | None, seed: int
) -> tuple[float, float]:
    """The 95 % interval of a metric: bootstrap, percentiles."""
    random, rows = np.random.default_rng(seed), len(truth)
    found = []
    for _ in range(_RESAMPLES):
        drawn = random.integers(0, rows, min(rows, _MOST))
        if METRICS[name].needs_scores and len(np.unique(truth[drawn])) < 2:
            continue
        found.append(judge((name,), truth[drawn], predicted[drawn], None if scores is None else scores[drawn])[name])
    if not found:
        return float("nan"), float("nan")
    low, high = np.percentile(found, (2.5, 97.5))
    return float(low), float(high)


def _moved(version: ModelVersion, now: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    then = {name: one for name, one in version.lineage.code.items() if name not in ("git", "system")}
    return {name: (one, now.get(name, "none")) for name, one in then.items() if now.get(name) != one}


def _is_unseeded(estimator: Estimator) -> bool:
    """Whether its fit may draw numbers that nobody has fixed; many an estimator never does."""
    if not hasattr(estimator, "get_params"):
        return False
    given: dict[str, Any] = estimator.get_params(deep=True)
    seeds: Sequence[str] = [name for name in given if name.rpartition("__")[2] == "random_state"]
    return any(given[name] is None for name in seeds)
