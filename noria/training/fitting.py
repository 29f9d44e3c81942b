"""The steps of a training run: join, split, fit, judge, register, promote."""

from __future__ import annotations

import resource
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from noria.core import NoProgress, Outcome, Progress, fingerprint, task
from noria.features import FeatureStore
from noria.pipelines import steps_to_dict
from noria.registry import Deployments, Lineage, ModelRegistry, Signature, code_state
from noria.storage import Workspace
from noria.training.answers import answer
from noria.training.dataset import PARTS_FILE, pack_parts, recipe
from noria.training.estimator import Estimator
from noria.training.evaluation import Evaluation, Trial, evaluate
from noria.training.evidence import TestRows
from noria.training.examples import Examples, join, selection
from noria.training.fits import predicts_numbers
from noria.training.formats import check, keep
from noria.training.gating import admit, check_gates
from noria.training.leakage import Leakage, find_leakage
from noria.training.learner import Learned, Learner, Lesson, learn, rows_of
from noria.training.metrics import METRICS, check_answers, check_metrics, check_truth
from noria.training.remembered import remembered
from noria.training.report import About
from noria.training.report import files as report_files
from noria.training.soundness import check_lesson, check_target, empty_features
from noria.training.splits import Fold, earlier_folds
from noria.training.weights import row_weights

if TYPE_CHECKING:
    from noria.training.pipeline import ModelTrainingPipeline


@dataclass(frozen=True)
class Fitted:
    """A model that has been judged on rows that it didn't learn from: `train` and `test` tell which.

    Attributes:
        leakage: what the training part knows of the test part.
        folds: of a split that judges several times, each metric's mean, standard deviation and values over the folds,
            the model's own being the last.
    """

    learned: Learned
    trial: Trial
    judged: Evaluation
    train: NDArray[np.bool_]
    test: NDArray[np.bool_]
    leakage: Leakage = field(default_factory=Leakage)
    folds: dict[str, dict[str, Any]] = field(default_factory=dict)


def train_and_register(
    pipeline: ModelTrainingPipeline, workspace: Workspace, run_id: str, progress: Progress
) -> Outcome:
    """Everything that a run of the pipeline does."""
    check_metrics(tuple(pipeline.metrics))
    check_gates(pipeline.gates)
    if (kept := _to_be_kept(pipeline.model)) is not None:
        check(kept, workspace.settings)  # before hours are spent on what can't be kept
    chosen = selection(pipeline, workspace)
    with task(progress, f"{pipeline.name}: join features"):
        examples = join(pipeline, workspace, chosen)
        made_of = recipe(chosen, examples.frame, workspace)
    with task(progress, f"{pipeline.name}: fit and judge"):
        seed, compute = workspace.settings.run.seed, workspace.settings.compute
        searched = _kept(pipeline, workspace, made_of, seed)
        fitted = fit(pipeline, examples, seed, progress, directory=searched, compute=compute)
    lineage = Lineage(
        {name: str(number) for name, number in chosen.versions.items()},
        _definitions(pipeline),
        code_state(workspace.settings.root),
        made_of,
    )
    version = _register(pipeline, workspace, run_id, examples, fitted, lineage)
    shutil.rmtree(searched.parent, ignore_errors=True)  # and what definitions before this one have left
    verdict = _promote(pipeline, workspace, version, fitted, TestRows(examples.frame, fitted.test))
    notes = {
        "models": {pipeline.name: fitted.judged.values, "baseline": fitted.judged.baseline},
        "metrics": fitted.judged.line(),
        "version": version,
        "verdict": verdict,
        "trained_on": int(fitted.train.sum()),
        "tested_on": int(fitted.test.sum()),
        **_made_so(fitted),
        "warnings": _warnings(fitted, examples),
        "peak_memory_bytes": peak_memory(),
    }
    rows = {
        "in": len(examples.target) + examples.skipped,
        "out": len(examples.target),
        "without label": examples.skipped,
    }
    return Outcome(str(version), rows, notes)


def _to_be_kept(model: Estimator | Learner) -> Estimator | None:
    """The estimator that a run will keep; None if a learner doesn't name it before it has learned."""
    if not isinstance(model, Learner):
        return model
    found: Estimator | None = getattr(model, "estimator", None) or getattr(model, "model", None)
    return found


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
    parameters = {**pipeline.to_dict(), **_made_so(fitted)}
    about = About(
        pipeline.name,
        pipeline.description,
        run_id,
        workspace.clock.now(),
        parameters,
        lineage.data,
        lineage.features,
        lineage.code,
    )
    kept = keep(fitted.learned.estimator, workspace.settings)
    version = ModelRegistry.of(workspace).register(
        pipeline.name,
        {
            **kept.files,
            PARTS_FILE: pack_parts(fitted.train, fitted.test),
            **report_files(about, fitted.trial, fitted.judged),
        },
        servable="tabular",
        run_id=run_id,
        spec={
            "model": kept.spec,
            "inputs": schema.to_dict(),
            "columns": list(pipeline.columns),
            "steps": steps_to_dict(fitted.learned.inputs.steps),
            "groups": [group.online_spec().to_dict() for group in pipeline.groups],
            "entities": _entities(pipeline),
            "on_demand": [bound.part.to_state() for bound in pipeline.on_demand],
        },
        metrics=fitted.judged.values,
        parameters={
            **parameters,
            **remembered(pipeline.gates, fitted.learned.estimator, workspace.settings.run.seed),
            "evaluation": fitted.judged.to_dict(),
        },
        signature=Signature(schema.to_dict(), {"prediction": str(examples.target.dtype)}, _example(pipeline, examples)),
        lineage=lineage,
    )
    return version.version


def _warnings(fitted: Fitted, examples: Examples) -> list[str]:
    """What the user should look at."""
    empty = empty_features(rows_of(examples.inputs, fitted.train))
    searched = fitted.learned.notes.get("search", {}).get("note")
    told = [*fitted.leakage.warnings, *([str(searched)] if searched else [])]
    return [*told, *(f"feature {name!r} has no value in any training row" for name in empty)]


def _made_so(fitted: Fitted) -> dict[str, Any]:
    """How the model came about, as plain JSON data."""
    made = {"leakage": fitted.leakage.to_dict(), "learning": fitted.learned.notes, "folds": fitted.folds}
    return {name: value for name, value in made.items() if value}


def peak_memory() -> int:
    """Bytes that this process has held at most since it began."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _promote(
    pipeline: ModelTrainingPipeline, workspace: Workspace, version: int, fitted: Fitted, rows: TestRows
) -> str:
    """Make the version the champion if it has to be; gives the verdict in words."""
    registry = ModelRegistry.of(workspace)
    verdict = fitted.judged.verdict
    wins = fitted.judged.is_better and (pipeline.promote or not registry.champions(pipeline.name))
    tried = Deployments.of(workspace).tried(pipeline.name)
    if wins and tried is not None:
        verdict += f"; not promoted, because {tried.doing}"
    elif wins:
        passed = admit(workspace, pipeline.gates, registry.get(pipeline.name, version), rows)
        if passed.refusal:
            return f"{verdict}; not promoted: {passed.refusal}"
        if pipeline.groups:
            # Their values are kept up for as long as this model answers; said first, so that a kill in between leaves
            # no champion whose values nobody keeps.
            FeatureStore(workspace).catalog.hold(pipeline.name, [group.online_spec() for group in pipeline.groups])
        registry.promote(pipeline.name, version, why=verdict, before=passed.champion, verdicts=passed.verdicts)
    return verdict


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
        ConfigError: the rows can't be split so.
        DataError: the training part has only one class, a feature without any value, or the targets aren't numbers.
    """
    means = _Means(seed, progress or NoProgress(), compute)
    check_target(pipeline.name, examples.target)
    if not predicts_numbers(pipeline.model):  # of which the fit says at once what is wrong
        check_truth(tuple(pipeline.metrics), examples.target)  # before hours are spent on what can't be judged
    rows = len(examples.target)
    train, test = pipeline.split.masks(examples.times, rows, seed, examples.entities, examples.target)
    leakage = find_leakage(
        examples.inputs,
        examples.target,
        train,
        test,
        split=pipeline.split,
        times=examples.times,
        entities=examples.entities,
        seed=seed,
    )
    earlier = earlier_folds(pipeline.split, examples.times, rows)
    before = [_fold_values(pipeline, examples, fold, means) for fold in earlier]
    learned = _learned(pipeline, examples, train, means, directory)
    trial = _trial(pipeline, examples, learned, train, test, seed)
    judged = evaluate(trial)
    folds = _spread([*before, judged.values]) if before else {}
    return Fitted(learned, trial, judged, train, test, leakage, folds)


@dataclass(frozen=True)
class _Means:
    """What every fit of a run has at hand; `compute`: who works where a learner shares its work."""

    seed: int
    progress: Progress
    compute: str


def _learned(
    pipeline: ModelTrainingPipeline,
    examples: Examples,
    train: NDArray[np.bool_],
    means: _Means,
    directory: Path | None = None,
) -> Learned:
    everything = Lesson(
        examples.inputs,
        examples.target,
        pipeline.input_schema(),
        steps=pipeline.steps,
        metric=pipeline.metrics[0],
        seed=means.seed,
        times=examples.times,
        entities=examples.entities,
        split=pipeline.split,
        early_stopping=pipeline.early_stopping,
        directory=directory,
        progress=means.progress,
        name=pipeline.name,
        compute=means.compute,
    )
    part = everything.part(train)
    weights = row_weights(pipeline.weights, pipeline.class_weight, part.times, part.target)
    check_lesson(pipeline.name, part)
    return learn(pipeline.model, replace(part, weights=weights))


def _fold_values(pipeline: ModelTrainingPipeline, examples: Examples, fold: Fold, means: _Means) -> dict[str, float]:
    """The metrics of a model that isn't kept."""
    train, test = fold
    learned = _learned(pipeline, examples, train, means)
    said = answer(learned, rows_of(examples.inputs, test), examples.target[test])
    check_answers(tuple(pipeline.metrics), said)
    return {name: METRICS[name].value(said) for name in pipeline.metrics}


def _trial(
    pipeline: ModelTrainingPipeline,
    examples: Examples,
    learned: Learned,
    train: NDArray[np.bool_],
    test: NDArray[np.bool_],
    seed: int,
) -> Trial:
    return Trial(
        learned,
        examples.frame,
        pipeline.input_schema().names,
        examples.target,
        train,
        test,
        tuple(pipeline.metrics),
        examples.times,
        pipeline.labels.time,
        _whose(pipeline),
        tuple(pipeline.slices),
        seed=seed,
    )


def _whose(pipeline: ModelTrainingPipeline) -> tuple[tuple[str, ...], ...]:
    """The keys of the entities that rows belong to."""
    own = [(pipeline.entity,)] if pipeline.entity is not None else []
    return tuple(dict.fromkeys((*own, *(tuple(group.keys) for group in pipeline.groups))))


def _spread(folds: Sequence[dict[str, float]]) -> dict[str, dict[str, Any]]:
    made = {}
    for name in folds[-1]:
        each = [fold[name] for fold in folds]
        made[name] = {"mean": float(np.mean(each)), "std": float(np.std(each, ddof=1)), "each": each}
    return made


def _kept(pipeline: ModelTrainingPipeline, workspace: Workspace, made_of: dict[str, Any], seed: int) -> Path:
    """The folder of a run that was killed, if it was of the same definition on the same rows; else a new one's."""
    key = fingerprint([pipeline.definition_hash(), made_of["digest"], seed])
    return workspace.settings.state_dir / "learning" / pipeline.name / key


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


def _example(pipeline: ModelTrainingPipeline, examples: Examples) -> dict[str, Any]:
    """The first row, of those that have everything if there is one."""
    near = examples.inputs.head(1_000).drop_nulls()  # mostly there is one: looking at a million rows takes 0.1 s
    complete = near if len(near) else examples.inputs.drop_nulls()
    return {"instances": (complete if len(complete) else examples.inputs).head(1).to_dicts()}
