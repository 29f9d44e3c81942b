"""`RecommenderSystem`: from events to live recommendations, as one component."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from noria.core import ConfigError, DataError, NoProgress, Outcome, Progress, Settings, allowed, check_name
from noria.pipelines import Source
from noria.pipelines.expressions import definition
from noria.registry import Deployments, Lineage, ModelRegistry, ModelVersion, Signature, code_state
from noria.storage import Workspace
from noria.training.splits import Split
from noria.training.time_splits import LeaveLastOut

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

    from noria.recommender.retriever import Retriever
    from noria.recommender.training import Events, Judgement, Trained


@dataclass(frozen=True)
class RecommenderSystem:
    """Recommends items to users from what they chose before.

    Attributes:
        name: of the component and of the model in the registry.
        events: who did what when; it needs an event time.
        items: the catalogue, if there is one: titles and other attributes, by `key`.
        positive: which events mean "liked"; all when left out.
        retrieve: the candidates, of which the best one answers.
        user: the events' column with the user's id.
        item: the events' column with the item's id.
        split: which events judge the retrievers; by default each user's newest ones.
        promote: whether a new version becomes the champion; if not, it is registered, to be tried by `noria deploy`.
            None does while something of this model is tried.

    Raises:
        ConfigError: a column doesn't exist, the events have no time, or two retrievers share a name.
    """

    name: str
    events: Source
    items: Source | None = None
    positive: pl.Expr | None = None
    retrieve: Sequence[Retriever] = ()
    user: str = "user_id"
    item: str = "item_id"
    split: Split = field(default_factory=LeaveLastOut)
    promote: bool = True
    description: str = "Recommends items to users from what they chose before."
    kind: str = field(default="recommender", init=False)

    def __post_init__(self) -> None:
        check_name(self.name, "recommender")
        for column in (self.user, self.item):
            if column not in self.events.schema:
                raise ConfigError(
                    f"recommender {self.name!r}: source {self.events.name!r} has no column {column!r}",
                    hint=f"name the columns with user= and item=; {allowed(self.events.schema.names, column)}",
                    field=column,
                )
        if self.events.time is None:
            raise ConfigError(
                f"recommender {self.name!r}: source {self.events.name!r} has no event time",
                hint="give its schema a Timestamp column: the past can't be told from the future without one",
            )
        names = [retriever.name for retriever in self.retrieve]
        if not names or len(set(names)) < len(names):
            raise ConfigError(
                f"recommender {self.name!r} needs at least one retriever, each of its own kind; got {names}",
                hint="for example retrieve=[nr.ALS(), nr.ItemKNN(), nr.Popular()]",
                field="retrieve",
            )

    @property
    def dependencies(self) -> tuple[str, ...]:
        """The sources."""
        return (self.events.name, *((self.items.name,) if self.items else ()))

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "name": self.name,
            "events": self.events.name,
            "items": self.items.name if self.items else None,
            "positive": definition(self.positive) if self.positive is not None else None,
            "retrieve": [retriever.to_dict() for retriever in self.retrieve],
            "user": self.user,
            "item": self.item,
            "split": self.split.to_dict(),
        }

    def inputs(self, settings: Settings) -> dict[str, str]:
        """Nothing from outside the system."""
        return {}

    def train(self, events: pl.DataFrame, *, seed: int = 0, progress: Progress | None = None) -> Trained:
        """Judge, choose and fit on a frame with the events' columns; nothing is stored.

        Raises:
            DataError: there are too few positive events.
        """
        return self._train(self._positive(events), seed, progress or NoProgress())

    def _train(self, positive: pl.DataFrame, seed: int, progress: Progress) -> Trained:
        from noria.recommender.training import train

        try:
            return train(self._events(positive), self.retrieve, split=self.split, seed=seed, progress=progress)
        except (ConfigError, DataError) as error:
            error.message = f"recommender {self.name!r}, {len(positive)} positive events: {error.message}"
            raise

    def lost(self, workspace: Workspace, version: str) -> str:
        """Whether the version's files are gone or damaged."""
        return ModelRegistry.of(workspace).damage(self.name, version)

    def run(self, workspace: Workspace, run_id: str, progress: Progress, *, full: bool = False) -> Outcome:
        """Train on the events' table, register the version and make it the champion."""
        from noria.training.dataset import Selection, pinned_versions, recipe

        chosen = Selection(
            self.events.name,
            pinned_versions([self.events.name], workspace),
            (self.user, self.item, str(self.events.time)),
            where=self.positive,
            present=(self.user, self.item),
        )
        events, left_out = chosen.read(workspace)
        trained = self._train(events, workspace.settings.run.seed, progress)
        lineage = Lineage(
            {name: str(version) for name, version in chosen.versions.items()},
            code=code_state(workspace.settings.root),
            dataset=recipe(chosen, events, workspace),
        )
        registered = self._register(workspace, run_id, trained, lineage)
        judged = trained.judgement
        registry = ModelRegistry.of(workspace)
        verdict = f"{judged.chosen} was the best of {', '.join(judged.models)} on held-out time"
        wins = self.promote or not registry.champions(self.name)
        tried = Deployments.of(workspace).tried(self.name)
        if wins and tried is not None:
            verdict += f"; not promoted, because {tried.doing}"
        elif wins:
            registry.promote(self.name, registered.version, why=verdict)
        rows = {"in": len(events) + left_out, "out": len(trained.interactions)}
        return Outcome(
            str(registered.version), rows, {**_notes(judged), "version": registered.version, "verdict": verdict}
        )

    def _positive(self, events: pl.DataFrame) -> pl.DataFrame:
        if self.positive is not None:
            events = events.filter(self.positive)
        return events.drop_nulls([self.user, self.item])  # nobody's events say nothing about anybody

    def _events(self, positive: pl.DataFrame) -> Events:
        import numpy as np
        import polars as pl

        from noria.recommender.training import Events

        times = positive[str(self.events.time)].cast(pl.Datetime("us", "UTC")).dt.timestamp("us")
        users, items = (_ids(positive[column]) for column in (self.user, self.item))
        return Events(users, items, times.to_numpy().astype(np.int64))

    def _register(self, workspace: Workspace, run_id: str, trained: Trained, lineage: Lineage) -> ModelVersion:
        from noria.recommender.artifact import dump

        kind = self.events.schema[self.user].spec()
        metrics = trained.judgement.models[trained.judgement.chosen]
        return ModelRegistry.of(workspace).register(
            self.name,
            dump(trained.interactions, trained.fitted.arrays(), trained.popular),
            servable="recommender",
            run_id=run_id,
            spec={"retriever": trained.retriever.to_dict()},
            metrics={name: [i.value, i.low, i.high] for name, i in metrics.items()},
            parameters=self.to_dict(),
            signature=Signature(
                {"user_id": kind, "k": "int64"},
                {"items": "list"},
                {"user_id": trained.interactions.user_ids[0].item(), "k": 10},
            ),
            lineage=lineage,
        )


def _ids(column: pl.Series) -> NDArray[Any]:
    """A column of ids as an array of int64 or of text; NumPy sorts text ten times as fast as objects."""
    values = column.to_numpy()
    return values.astype(str) if values.dtype.kind == "O" else values


def _notes(judged: Judgement) -> dict[str, Any]:
    models = {
        name: {metric: [i.value, i.low, i.high] for metric, i in metrics.items()}
        for name, metrics in judged.models.items()
    }
    return {"models": models, "chosen": judged.chosen, "users": judged.users, "cold_users": judged.cold_users}
