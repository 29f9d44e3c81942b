"""The steps of a training run: join, split, fit, judge, register, promote."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import DataError, NoProgress, Outcome, Progress, fingerprint, task
from noria.features import FeatureStore
from noria.pipelines import steps_to_dict
from noria.registry import Deployments, Lineage, ModelRegistry, Signature, code_state
from noria.storage import Workspace
from noria.training.dataset import PARTS_FILE, TARGET, Selection, pack_parts, pinned_versions, recipe
from noria.training.estimator import FILE as MODEL_FILE
from noria.training.estimator import dump, scores
from noria.training.fast import predictor_of
from noria.training.learner import Learned, Lesson, learn
from noria.training.metrics import METRICS, check_metrics, judge

if TYPE_CHECKING:
    from noria.training.pipeline import ModelTrainingPipeline


@dataclass(frozen=True)
class Examples:
    """Joined rows: inputs, the value to predict, and event times in microseconds (None without a time column).

    Attributes:
        frame: all of it as it is kept: entities, time, inputs and target.
    """

    frame: pl.DataFrame
    inputs: pl.DataFrame
    target: NDArray[Any]
    times: NDArray[np.int64] | None
    skipped: int


@dataclass(frozen=True)
class Fitted:
    """A model that has been judged on rows that it didn't learn from: `train` and `test` tell which."""

    learned: Learned
    metrics: dict[str, float]
    baseline: dict[str, float]
    train: NDArray[np.bool_]
    test: NDArray[np.bool_]


def train_and_register(
    pipeline: ModelTrainingPipeline, workspace: Workspace, run_id: str, progress: Progress
) -> Outcome:
    """Everything that a run of the pipeline does."""
    check_metrics(tuple(pipeline.metrics))
    chosen = selection(pipeline, workspace)
    with task(progress, f"{pipeline.name}: join features"):
        examples = join(pipeline, workspace, chosen)
        made_of = recipe(chosen, examples.frame, workspace)
    with task(progress, f"{pipeline.name}: fit and judge"):
        seed, compute = workspace.settings.run.seed, workspace.settings.compute
        kept = _kept(pipeline, workspace, made_of, seed)
        fitted = fit(pipeline, examples, seed, progress, directory=kept, compute=compute)
        predictor_of(fitted.learned.estimator)  # compiles what a server would compile at its first start
    lineage = Lineage(
        {name: str(number) for name, number in chosen.versions.items()},
        _definitions(pipeline),
        code_state(workspace.settings.root),
        made_of,
    )
    version = _register(pipeline, workspace, run_id, examples, fitted, lineage)
    shutil.rmtree(kept.parent, ignore_errors=True)  # and what definitions before this one have left
    verdict = _promote(pipeline, workspace, version, fitted)
    notes = {
        "models": {pipeline.name: fitted.metrics, "baseline": fitted.baseline},
        "version": version,
        "verdict": verdict,
        "trained_on": int(fitted.train.sum()),
        "tested_on": int(fitted.test.sum()),
    }
    rows = {
        "in": len(examples.target) + examples.skipped,
        "out": len(examples.target),
        "without label": examples.skipped,
    }
    return Outcome(str(version), rows, notes)


def _register(
    pipeline: ModelTrainingPipeline,
    workspace: Workspace,
    run_id: str,
    examples: Examples,
    fitted: Fitted,
    lineage: Lineage,
) -> int:
    """Add the version to the registry; gives its number."""
    schema = pipeline.input_schema()
    version = ModelRegistry.of(workspace).register(
        pipeline.name,
        {MODEL_FILE: dump(fitted.learned.estimator), PARTS_FILE: pack_parts(fitted.train, fitted.test)},
        servable="tabular",
        run_id=run_id,
        spec={
            "inputs": schema.to_dict(),
            "columns": list(pipeline.columns),
            "steps": steps_to_dict(fitted.learned.inputs.steps),
            "groups": [group.online_spec().to_dict() for group in pipeline.groups],
            "entities": _entities(pipeline),
            "on_demand": [bound.part.to_state() for bound in pipeline.on_demand],
        },
        metrics=fitted.metrics,
        parameters=pipeline.to_dict() | ({"learned": fitted.learned.notes} if fitted.learned.notes else {}),
        signature=Signature(schema.to_dict(), {"prediction": str(examples.target.dtype)}, _example(pipeline, examples)),
        lineage=lineage,
    )
    return version.version


def _promote(pipeline: ModelTrainingPipeline, workspace: Workspace, version: int, fitted: Fitted) -> str:
    """Make the version the champion if it has to be; gives the verdict in words."""
    registry = ModelRegistry.of(workspace)
    verdict = _verdict(pipeline.metrics[0], fitted)
    wins = verdict.startswith("better") and (pipeline.promote or not registry.champions(pipeline.name))
    tried = Deployments.of(workspace).tried(pipeline.name)
    if wins and tried is not None:
        verdict += f"; not promoted, because {tried.doing}"
    elif wins:
        if pipeline.groups:
            # Their values are kept up for as long as this model answers; said first, so that a kill in between leaves
            # no champion whose values nobody keeps.
            FeatureStore(workspace).catalog.hold(pipeline.name, [group.online_spec() for group in pipeline.groups])
        registry.promote(pipeline.name, version, why=verdict)
    return verdict


def selection(pipeline: ModelTrainingPipeline, workspace: Workspace) -> Selection:
    """The rows that the pipeline learns from, of the tables as they are now."""
    labels = pipeline.labels
    keys = [key for group in pipeline.groups for key in group.keys]
    given = [name for part in pipeline.on_demand for name in part.inputs.names]
    own = dict.fromkeys((*keys, *((labels.time,) if labels.time is not None else ()), *pipeline.columns, *given))
    return Selection(
        labels.name,
        pinned_versions(_sources(pipeline), workspace),
        tuple(own),
        labels.time,
        pl.col(pipeline.target) if isinstance(pipeline.target, str) else pipeline.target,
        groups=pipeline.groups,
        on_demand=[bound.part for bound in pipeline.on_demand],
        features=[name for name in pipeline.input_schema().names if name not in own],
    )


def join(pipeline: ModelTrainingPipeline, workspace: Workspace, chosen: Selection | None = None) -> Examples:
    """The labels that have a target, with every feature as of their time.

    Args:
        chosen: which rows; by default those of the tables as they are now.

    Raises:
        DataError: no row has a target.
    """
    frame, skipped = (chosen or selection(pipeline, workspace)).read(workspace)
    if frame.is_empty():
        raise DataError(
            f"model {pipeline.name!r}: none of the {skipped} rows of {pipeline.labels.name!r} has a target",
            hint="check the target's expression and its column",
        )
    times = None
    if pipeline.labels.time is not None:
        times = frame[pipeline.labels.time].dt.timestamp("us").to_numpy().astype(np.int64)
    return Examples(frame, frame.select(pipeline.input_schema().names), frame[TARGET].to_numpy(), times, skipped)


def fit(
    pipeline: ModelTrainingPipeline,
    examples: Examples,
    seed: int,
    progress: Progress | None = None,
    *,
    directory: Path | None = None,
    compute: str = "local",
) -> Fitted:
    """Fit steps and estimator on the training part, judge both on the test part.

    Args:
        directory: for what a learner wants to survive a kill.
        compute: who works where a learner shares its work.

    Raises:
        DataError: the training part has only one class.
    """
    train, test = pipeline.split.masks(examples.times, len(examples.target), seed)
    truth, held_out = examples.target[train], examples.target[test]
    if len(np.unique(truth)) < 2:
        raise DataError(
            f"model {pipeline.name!r}: all {len(truth)} training rows have the target {truth[0]!r}",
            hint="a model needs examples of at least two values; check the target and the split",
        )
    lesson = _lesson(pipeline, examples, train, seed, progress or NoProgress())
    learned = learn(pipeline.model, replace(lesson, name=pipeline.name, directory=directory, compute=compute))
    estimator = learned.estimator
    matrix = learned.inputs.matrix(examples.inputs.filter(pl.Series(test)))
    names = tuple(pipeline.metrics)
    metrics = judge(names, held_out, np.asarray(estimator.predict(matrix)), scores(estimator, matrix))
    return Fitted(learned, metrics, _baseline(names, truth, held_out), train, test)


def _kept(pipeline: ModelTrainingPipeline, workspace: Workspace, made_of: dict[str, Any], seed: int) -> Path:
    """The folder of a run that was killed, if it was of the same definition on the same rows; else a new one's."""
    key = fingerprint([pipeline.definition_hash(), made_of["digest"], seed])
    return workspace.settings.state_dir / "learning" / pipeline.name / key


def _lesson(
    pipeline: ModelTrainingPipeline, examples: Examples, train: NDArray[np.bool_], seed: int, progress: Progress
) -> Lesson:
    everything = Lesson(
        examples.inputs,
        examples.target,
        pipeline.input_schema(),
        steps=pipeline.steps,
        metric=pipeline.metrics[0],
        seed=seed,
        times=examples.times,
        progress=progress,
    )
    return everything.part(train)


def _baseline(names: tuple[str, ...], truth: NDArray[Any], held_out: NDArray[Any]) -> dict[str, float]:
    """What the most frequent value (of a class) or the mean (of a number) would score."""
    values, counts = np.unique(truth, return_counts=True)
    regression = truth.dtype.kind == "f"
    guess = truth.mean() if regression else values[counts.argmax()]
    share = np.full(len(held_out), float(np.mean(truth == values[-1])))
    return judge(names, held_out, np.full(len(held_out), guess), share)


def _verdict(metric: str, fitted: Fitted) -> str:
    value, baseline = fitted.metrics[metric], fitted.baseline[metric]
    better = value > baseline if METRICS[metric].greater_is_better else value < baseline
    return f"{'better' if better else 'not better'} than the baseline: {metric} {value:.4f} against {baseline:.4f}"


def _definitions(pipeline: ModelTrainingPipeline) -> dict[str, str]:
    found = {group.name: group.definition_hash() for group in pipeline.groups}
    return found | {bound.part.name: bound.part.definition_hash() for bound in pipeline.on_demand}


def _entities(pipeline: ModelTrainingPipeline) -> dict[str, str]:
    """The ids that a request gives, as the labels have them; where only one side says UUID, the groups decide."""
    found: dict[str, str] = {}
    for group in pipeline.groups:
        for key in group.keys:
            field, kind = pipeline.labels.schema[key], group.source.schema[key].dtype
            found[key] = kind if "uuid" in (field.dtype, kind) and found.get(key) != "str" else field.spec()
    return found


def _sources(pipeline: ModelTrainingPipeline) -> tuple[str, ...]:
    sources = (source for group in pipeline.groups for source in group.dependencies)
    return tuple(dict.fromkeys((pipeline.labels.name, *sources)))


def _example(pipeline: ModelTrainingPipeline, examples: Examples) -> dict[str, Any]:
    """The first row, of those that have everything if there is one."""
    complete = examples.inputs.drop_nulls()
    return {"instances": (complete if len(complete) else examples.inputs).head(1).to_dicts()}
