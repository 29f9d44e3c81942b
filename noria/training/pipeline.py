"""`ModelTrainingPipeline`: from features and labels to a judged, registered model, as one component."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from noria.core import ConfigError, Outcome, Progress, Schema, Settings, allowed, check_name, fingerprint
from noria.features import BoundOnDemand, FeatureGroup, OnDemand, bound
from noria.pipelines import Source, expressions
from noria.registry import ModelRegistry
from noria.registry.evidence import Gate
from noria.storage import Workspace
from noria.training.slices import Slice, column_of
from noria.training.splits import Split
from noria.training.time_splits import TimeSplit

if TYPE_CHECKING:
    import polars as pl

    from noria.pipelines import Step
    from noria.training.estimator import Estimator
    from noria.training.learner import Learner
    from noria.training.weights import ClassWeight, Weighting


@dataclass(frozen=True)
class ModelTrainingPipeline:
    """Trains an estimator on labels joined with features as of each label's time, judges it, and registers it.

    Attributes:
        name: of the component and of the model in the registry.
        labels: the source with one row per example.
        target: what to predict: a column of the labels or an expression on them; rows where it is null are left out.
        features: the model's inputs: names of the labels' columns, feature groups, and on-demand features,
            whose inputs are columns of the labels.
        model: anything with `fit` and `predict`, or a learner: what makes a model in its own way.
        steps: transformations, fitted on the training part only.
        split: which rows judge.
        weights: how much each training row counts, such as `nr.recency(half_life="90d")`.
        class_weight: `balanced`, or a weight for each class; both kinds of weights are multiplied.
        early_stopping: after how many rounds without getting better the model stops, judged on a part of the training
            rows that the same kind of split sets aside. By default as the model itself says; one that says nothing
            learns from all training rows, and as long as it was told to.
        metrics: names from `noria.training.METRICS`; the first one decides about promotion.
        promote: whether a version that beats the baseline becomes the champion. If not, it is only registered, to be
            tried by `noria deploy`; the very first one becomes the champion all the same: somebody has to answer.
            None does while something of this model is tried.
        gates: what it has to pass beside that, such as `nr.better("roc_auc", by=0.002)`; they change nothing about
            the model, so that other gates make no other version.
        slices: parts of the rows that are judged by themselves: columns of the labels, inputs, `nr.by_month()`; by
            default the inputs with few values, and time.

    Raises:
        ConfigError: an unknown column, a group whose entity the labels don't have, no features, something of another
            kind. An unknown metric is told when it runs.
    """

    name: str
    labels: Source
    target: str | pl.Expr
    features: Sequence[str | FeatureGroup | OnDemand]
    model: Estimator | Learner
    steps: Sequence[Step] = ()
    split: Split = field(default_factory=TimeSplit)
    weights: Weighting | None = None
    class_weight: ClassWeight | None = None
    early_stopping: int | None = None
    metrics: Sequence[str] = ("accuracy", "f1", "roc_auc")
    promote: bool = True
    gates: Sequence[Gate] = ()
    slices: Sequence[Slice] = ()
    description: str = "Learns from past examples to predict new ones."
    kind: str = field(default="training", init=False)

    def __post_init__(self) -> None:
        check_name(self.name, "model")
        self._check_kinds()
        if not self.features:
            raise ConfigError(f"model {self.name!r} has no features", hint=allowed(self.labels.schema.names))
        for column in (*self.columns, *(key for group in self.groups for key in group.keys)):
            self._check_column(column)
        for part in self.on_demand:
            self._check_inputs(part)
        if isinstance(self.target, str):
            self._check_column(self.target)
        else:
            for column in self.target.meta.root_names():
                self._check_column(column, is_read=False)
        if self.entity is not None:
            self._check_column(self.entity, is_read=False)
        self._check_names()
        self._check_model()
        for one in self.slices:
            self._check_slice(column_of(one, self.labels.time))
        if self.groups and self.labels.time is None:
            raise ConfigError(
                f"model {self.name!r}: source {self.labels.name!r} has no event time to join features by",
                hint="give its schema a Timestamp column",
            )

    def _check_names(self) -> None:
        from noria.training.dataset import TARGET
        from noria.training.inputs import check_names

        given = [name for part in self.on_demand for name in part.inputs.names]
        names = (*self.input_schema().names, *given, *(key for group in self.groups for key in group.keys))
        check_names(names)
        if TARGET in names:
            raise ConfigError(
                f"model {self.name!r}: {TARGET} is what the training set calls the target",
                hint="give the column another name",
                field=TARGET,
            )

    def _check_kinds(self) -> None:
        """What Python would else tell of, far from here and in other words."""

        def wrong(field: str, hint: str) -> ConfigError:
            got = getattr(self, field)
            shown = repr(got) if isinstance(got, (str, int, float)) else f"of type {type(got).__name__}"
            return ConfigError(f"model {self.name!r}: {field}= is {shown}", hint=hint, field=field)

        if not isinstance(self.labels, Source):
            raise wrong("labels", "give the nr.Source itself")
        if not isinstance(self.target, str) and not hasattr(self.target, "meta"):
            raise wrong("target", 'a column, or an expression: target=nr.col("delay") > 15')
        for name in ("features", "steps", "metrics", "gates", "slices"):
            got = getattr(self, name)
            if isinstance(got, str) or not isinstance(got, Sequence):
                raise wrong(name, f"write a list: {name}=[…]")
        for part in self.features:
            if not isinstance(part, (str, FeatureGroup, OnDemand)):
                raise ConfigError(
                    f"model {self.name!r}: {part!r} is no feature",
                    hint="a feature is the name of a column, a feature group or an on-demand feature",
                    field="features",
                )
        for gate in self.gates:
            if not isinstance(gate, Gate):
                raise ConfigError(
                    f"model {self.name!r}: {gate!r} is no gate",
                    hint='as in gates=[nr.better("roc_auc", by=0.002)]',
                    field="gates",
                )
        if not hasattr(self.split, "masks"):
            raise wrong("split", "as in split=nr.TimeSplit(test=0.2), or nr.RandomSplit(test=0.2)")

    def _check_model(self) -> None:
        from noria.training.weights import check_class_weight

        learns = callable(getattr(self.model, "learn", None)) and hasattr(self.model, "to_dict")
        missing = [verb for verb in ("fit", "predict") if not callable(getattr(self.model, verb, None))]
        if isinstance(self.model, type) or (missing and not learns):
            got = self.model.__name__ if isinstance(self.model, type) else type(self.model).__name__
            made = f"write {got}(…): a model is an object, not a class" if isinstance(self.model, type) else ""
            raise ConfigError(
                f"model {self.name!r}: {got} has no {' and no '.join(missing) or 'parameters yet'}",
                hint=made or "a model is anything with fit and predict, as in scikit-learn",
                field="model",
            )
        check_class_weight(self.class_weight)

    def _check_column(self, column: str, *, is_read: bool = True) -> None:
        schema = self.labels.schema
        if column not in schema:
            raise ConfigError(
                f"model {self.name!r}: source {self.labels.name!r} has no column {column!r}",
                hint=allowed(schema.names, column),
                field=column,
            )
        if is_read and column in self.columns and schema[column].dtype in ("timestamp", "date"):
            raise ConfigError(
                f"model {self.name!r}: column {column!r} is an instant, and a model reads numbers, text or Booleans",
                hint="leave it out, or add a column with the hour or the month",
                field=column,
            )

    def _check_slice(self, column: str) -> None:
        known = dict.fromkeys((*self.input_schema().names, *self.labels.schema.names))
        if column not in known:
            raise ConfigError(
                f"model {self.name!r}: there is no column {column!r} to slice by",
                hint=allowed(known, column),
                field="slices",
            )

    def _check_inputs(self, part: BoundOnDemand) -> None:
        for given in part.inputs:
            self._check_column(given.name, is_read=False)
            kind = self.labels.schema[given.name].dtype
            if given.dtype != kind:
                raise ConfigError(
                    f"model {self.name!r}: the input {given.name!r} of {part.part.name!r} is {given.dtype}, and "
                    f"in source {self.labels.name!r} it is {kind}",
                    hint=f'inputs={{"{given.name}": "{kind}"}}',
                    field=given.name,
                )

    @property
    def entity(self) -> str | None:
        """The column that says whose a row is: what the split goes by, or the first key of the feature groups."""
        keys = (key for group in self.groups for key in group.keys)
        return getattr(self.split, "by", None) or next(keys, None)

    @property
    def columns(self) -> tuple[str, ...]:
        """The inputs that are columns of the labels."""
        return tuple(part for part in self.features if isinstance(part, str))

    @property
    def groups(self) -> tuple[FeatureGroup, ...]:
        """The inputs that are feature groups."""
        return tuple(part for part in self.features if isinstance(part, FeatureGroup))

    @property
    def on_demand(self) -> tuple[BoundOnDemand, ...]:
        """The inputs that are computed from the request."""
        parts = [part for part in self.features if isinstance(part, OnDemand)]
        return tuple(bound(parts, self.groups)) if parts else ()

    @property
    def dependencies(self) -> tuple[str, ...]:
        """The labels' source and the feature groups, and the groups' own sources."""
        sources = (source for group in self.groups for source in group.dependencies)
        return tuple(dict.fromkeys((self.labels.name, *(group.name for group in self.groups), *sources)))

    def to_dict(self) -> dict[str, Any]:
        from noria.training.estimator import definition
        from noria.training.learner import Learner

        return {
            "kind": self.kind,
            "name": self.name,
            "labels": self.labels.name,
            "target": self.target if isinstance(self.target, str) else expressions.definition(self.target),
            "features": [part if isinstance(part, str) else part.to_dict() for part in self.features],
            "model": self.model.to_dict() if isinstance(self.model, Learner) else definition(self.model),
            "steps": [step.to_dict() for step in self.steps],
            "split": self.split.to_dict(),
            "metrics": list(self.metrics),
            **self._options(),
        }

    def _options(self) -> dict[str, Any]:
        """What is set of what needn't be: a new option makes no old model stale."""
        slices = [one if isinstance(one, str) else asdict(one) for one in self.slices]
        options: dict[str, Any] = {"slices": slices or None, "early_stopping": self.early_stopping}
        options["weights"] = None if self.weights is None else self.weights.to_dict()
        given = self.class_weight
        options["class_weight"] = {str(k): v for k, v in given.items()} if isinstance(given, Mapping) else given
        return {name: value for name, value in options.items() if value is not None}

    def inputs(self, settings: Settings) -> dict[str, str]:
        """Nothing from outside the system."""
        return {}

    def input_schema(self) -> Schema:
        """The model's inputs by name; a group's features are named `group.feature` and may be missing."""
        own = {name: self.labels.schema[name].spec() for name in self.columns}
        looked_up = {name: spec for group in self.groups for name, spec in group.output_schema().items()}
        computed = {name: spec for part in self.on_demand for name, spec in part.output_schema().items()}
        return Schema.of({**own, **looked_up, **computed})

    def lost(self, workspace: Workspace, version: str) -> str:
        """Whether the version's files are gone or damaged."""
        return ModelRegistry.of(workspace).damage(self.name, version)

    def run(self, workspace: Workspace, run_id: str, progress: Progress, *, full: bool = False) -> Outcome:
        """Join, split, fit, judge, register; the version becomes the champion if it beats the baseline."""
        from noria.training.fitting import train_and_register

        return train_and_register(self, workspace, run_id, progress)

    def definition_hash(self) -> str:
        """A hash of the whole definition."""
        return fingerprint(self.to_dict())
