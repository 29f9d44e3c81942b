"""A version made again: its rows rebuilt, its estimator fitted again, and both held against what was registered.

`reproduce` needs the registry and the tables alone. Where they don't say all (an estimator with a function among its
parameters), `system.py` has to, if what it says of this model is still what it said then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import msgspec
import polars as pl

from noria.core import DataError, NoProgress, NoriaError, Progress, Schema, task
from noria.registry import ModelRegistry, ModelVersion, code_state
from noria.storage import Workspace
from noria.training.comparison import Answered, Refound, difference, refound
from noria.training.dataset import TARGET, Dataset, part_mask, rebuild_dataset
from noria.training.evidence import TABULAR, answers
from noria.training.examples import examples_of, times_of
from noria.training.fitting import fit
from noria.training.formats import keep
from noria.training.formats.format import Kept
from noria.training.learner import Learned, Lesson, fit_once
from noria.training.pipeline import ModelTrainingPipeline
from noria.training.remembered import ESTIMATOR, GATES, SEED, KnownStep, made_estimator, made_steps
from noria.training.servable import TabularServable
from noria.training.servable import load as load_servable

_KNOWN = frozenset(
    (ESTIMATOR, SEED, GATES, "kind", "name", "labels", "target", "features", "model", "steps", "split", "metrics")
) | {"evaluation", "leakage", "learning", "folds", "notes", "slices"}
"""The parts of a version's parameters that fitting again from the registry takes into account, or that don't matter."""

_SEARCHES = ("tune", "auto")
"""The learners whose model is one fit of an estimator, with parameters that they have found."""


@dataclass(frozen=True)
class Reproduction:
    """What came of it.

    Attributes:
        label: of the version.
        outcome: `identical`: every prediction has the registered one's bits, and the metrics are the registered ones.
            `equivalent`: some haven't, which the estimator's own randomness or moved libraries explain, and all
            metrics are within their intervals.
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
        made = _again(version, dataset, pipeline, seed)
    with task(progress, f"{version.label}: compare"):
        then = answers(load_servable(version, workspace), dataset.frame)
        now = _answers(version, made.learned, dataset.frame)
        if difference(then, now)[0]:
            other = _answers(version, _again(version, dataset, pipeline, seed).learned, dataset.frame)
            made = replace(made, is_random=difference(now, other)[0] > 0)
        return _compared(workspace, version, dataset, made, then, now)


@dataclass(frozen=True)
class _Made:
    """A model fitted again, and who said how; `is_random`: two fits of it differ by themselves."""

    learned: Learned
    source: str
    notes: tuple[str, ...] = ()
    is_random: bool = False


def _again(version: ModelVersion, dataset: Dataset, pipeline: ModelTrainingPipeline | None, seed: int) -> _Made:
    try:
        return _from_registry(version, dataset, seed)
    except NoriaError as error:
        reason = error.message
    if pipeline is None:
        raise DataError(
            f"{version.label} can't be fitted again from the registry alone: {reason}",
            hint="call it in the project whose system.py defines this model",
        )
    # As a record keeps it, where NaN is null.
    said: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(pipeline.to_dict()))
    others = [name for name, value in said.items() if version.parameters.get(name) != value]
    if others:
        raise DataError(
            f"{version.label} can't be fitted again: {reason}; and system.py says otherwise now: {', '.join(others)}",
            hint=f"check out system.py as it was: {version.lineage.code.get('git', 'its git commit is not known')}",
        )
    examples = examples_of(pipeline, dataset.frame)
    return _Made(fit(pipeline, examples, seed).learned, "system.py", (f"system.py said what to fit: {reason}",))


def _from_registry(version: ModelVersion, dataset: Dataset, seed: int) -> _Made:
    kept = version.parameters
    if ESTIMATOR not in kept:
        raise DataError("it was registered before estimators were kept")
    unknown = sorted(name for name, value in kept.items() if name not in _KNOWN and value not in (None, [], {}, False))
    if unknown:
        raise DataError(f"its definition has {', '.join(unknown)}")
    model = kept.get("model") or {}
    if model and "class" not in model and model.get("learner") not in _SEARCHES:
        raise DataError("it was made in another way than by one fit to all training rows")
    if "early_stopping" in kept.get("learning", {}):
        raise DataError("rows that its split had set aside said when to stop")
    estimator = made_estimator(kept[ESTIMATOR])
    own = [*kept.get("steps", ()), *kept.get("learning", {}).get("steps", ())]
    steps = made_steps(own, version.spec["steps"][: len(own)])  # the automatic ones are fitted again by themselves
    frame, schema = dataset.frame, Schema.of(version.spec["inputs"])
    lesson = Lesson(
        frame.select(schema.names),
        frame[TARGET].to_numpy(),
        schema,
        steps=steps,
        metric=str(kept["metrics"][0]) if kept.get("metrics") else "",
        seed=seed,
        times=times_of(frame, version.lineage.dataset["time"]),
    )
    try:
        learned = fit_once(estimator, lesson.part(part_mask(frame, "train")))
    except (TypeError, ValueError) as error:  # another version of the library refuses the parameters
        raise DataError(f"its estimator refuses to be fitted now: {error}") from error
    notes = []
    known = [str(step.to_dict()["step"]) for step in steps if isinstance(step, KnownStep)]
    if known:
        notes.append(f"steps with expressions were taken as they were fitted: {', '.join(known)}")
    if "class" not in model:
        notes.append("a learner found its parameters: they were fitted again, and not looked for again")
    return _Made(learned, "registry", tuple(notes))


def _answers(version: ModelVersion, learned: Learned, frame: pl.DataFrame) -> Answered:
    """What the model that was fitted again says, by the same code as a server."""
    columns = version.spec["columns"]
    return answers(TabularServable(version, learned.estimator, learned.inputs, None, {}, columns), frame)


def _compared(
    workspace: Workspace, version: ModelVersion, dataset: Dataset, made: _Made, then: Answered, now: Answered
) -> Reproduction:
    changed, largest = difference(then, now)
    metrics = refound(version, dataset.frame[TARGET].to_numpy(), part_mask(dataset.frame, "test"), then, now)
    libraries = _moved(version, code_state(workspace.settings.root))
    others = [name for name, one in metrics.items() if not one.same] if changed == 0 else []
    outcome: Literal["identical", "equivalent", "different"] = "different"
    if changed == 0 and not others:
        outcome = "identical"
    elif all(one.fits for one in metrics.values()) and (made.is_random or libraries):
        outcome = "equivalent"
    random = ("two fits of it differ by themselves",) if made.is_random else ()
    if others:
        told = f"every prediction has the same bits, but what is registered as {', '.join(others)} isn't what they give"
        random = (f"{told}: noria audit --verify {version.name} tells whether the record was changed",)
    return Reproduction(
        version.label,
        outcome,
        made.source,
        len(dataset.frame),
        dataset.digest,
        changed,
        largest,
        same_file=_same_files(version, keep(made.learned.estimator, workspace.settings)),
        metrics=metrics,
        libraries=libraries,
        notes=(*made.notes, *random),
    )


def _same_files(version: ModelVersion, kept: Kept) -> bool:
    """Whether the model's own files have the same bytes."""
    found = {name: hashlib.sha256(data).hexdigest() for name, data in kept.files.items()}
    return found == {name: blob.digest for name, blob in version.files.items() if name in found}


def _moved(version: ModelVersion, now: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    then = {name: one for name, one in version.lineage.code.items() if name not in ("git", "system")}
    return {name: (one, now.get(name, "none")) for name, one in then.items() if now.get(name) != one}
