"""Training sets that can be made again, bit for bit, from what the registry keeps of a model version.

A version keeps a *recipe*: the version of each table that was read, the definitions of the feature groups, the
expressions, and digests of the rows that came of it. Neither `system.py` nor the newest rows have a say: rebuilding
reads the tables as they were, computes by the same code, and compares the digests.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import DataError, IntegrityError, NoriaError, NotFoundError, StorageError
from noria.features import FeatureGroup, FeatureStore, OnDemand
from noria.features.catalog import group_of
from noria.features.on_demand import bound
from noria.pipelines.expressions import loaded, saved_or_text
from noria.registry import ModelRegistry, ModelVersion, code_state
from noria.storage import Workspace
from noria.storage.digest import digest_columns, digest_of

TARGET = "__target__"
"""The column with what is to be predicted."""
PART = "__part__"
"""The column that says whether a row taught the model (`train`) or judged it (`test`); missing if neither."""
PARTS_FILE = "parts.zlib"
"""The version's file with that column: for each row a bit for `train`, then for each a bit for `test`, packed."""
_FORMAT = 1


@dataclass(frozen=True)
class Selection:
    """What rows a training set consists of.

    Attributes:
        labels: the table with one row per example.
        versions: of that table and of those that the groups read, by name.
        columns: which of its columns are wanted.
        time: the one with the instants.
        target: what is to be predicted; rows where it is missing are left out.
        where: rows for which it isn't true are left out.
        present: columns whose missing values leave a row out.
        groups: whose features to add.
        on_demand: features to add that are computed from the rows.
        features: which of their columns are wanted.
    """

    labels: str
    versions: Mapping[str, int]
    columns: Sequence[str]
    time: str | None = None
    target: pl.Expr | None = None
    where: pl.Expr | None = None
    present: Sequence[str] = ()
    groups: Sequence[FeatureGroup] = ()
    on_demand: Sequence[OnDemand] = ()
    features: Sequence[str] = ()

    def read(self, workspace: Workspace) -> tuple[pl.DataFrame, int]:
        """The rows, and how many of the labels' were left out: columns, features, and `TARGET` if there is one."""
        labels = self._labels(workspace)
        rows = labels if self.where is None else labels.filter(self.where)
        rows = rows.drop_nulls(list(self.present)) if self.present else rows
        wanted = [*self.columns, *self.features]
        if self.target is not None:
            rows = rows.with_columns(self.target.alias(TARGET)).filter(pl.col(TARGET).is_not_null())
            wanted.append(TARGET)
        left_out = len(labels) - len(rows)
        if rows.is_empty():
            return rows.select([name for name in wanted if name in rows.columns]), left_out
        if self.groups:
            sources = {group.source.name for group in self.groups}
            pinned = {name: version for name, version in self.versions.items() if name in sources}
            rows = FeatureStore(workspace).training_set(rows, self.groups, time=str(self.time), versions=pinned)
        rows = rows.with_columns(column for part in bound(self.on_demand, self.groups) for column in part.columns(rows))
        return rows.select(wanted), left_out

    def _labels(self, workspace: Workspace) -> pl.DataFrame:
        table, version = workspace.table(self.labels), self.versions[self.labels]
        present = table.scan(version).collect_schema().names()
        needed = [*self.columns, *self.present]
        for expression in (self.target, self.where):
            needed += expression.meta.root_names() if expression is not None else []
        needed = list(dict.fromkeys(needed))
        # A pattern such as pl.col("^price_.*$") names no column: then all are read.
        return table.read(version, needed if set(needed) <= set(present) else None)


def pinned_versions(names: Sequence[str], workspace: Workspace) -> dict[str, int]:
    """The newest version of each table: what a run reads of them, whatever is loaded meanwhile.

    Raises:
        NotFoundError: a table has never been written.
    """
    found = {}
    for name in dict.fromkeys(names):
        version = workspace.table(name).version()
        if version is None:
            raise NotFoundError(f"table {name!r} has never been written", hint="call `noria run` first")
        found[name] = version
    return found


def recipe(selection: Selection, frame: pl.DataFrame, workspace: Workspace) -> dict[str, Any]:
    """All that is needed to make the training set again, as plain JSON data; `frame` is what came of it.

    Groups are registered, if they aren't. Of a Python function in an expression only its text is kept.
    """
    catalog = FeatureStore(workspace).catalog
    groups = [catalog.register(group) for group in selection.groups]
    columns = digest_columns(frame)
    return {
        "format": _FORMAT,
        "labels": selection.labels,
        "versions": dict(selection.versions),
        "columns": list(selection.columns),
        "time": selection.time,
        "target": None if selection.target is None else saved_or_text(selection.target),
        "where": None if selection.where is None else saved_or_text(selection.where),
        "present": list(selection.present),
        "groups": [{"name": one.name, "version": one.version, "state": one.state} for one in groups],
        "on_demand": [part.to_state() for part in selection.on_demand],
        "features": list(selection.features),
        "rows": len(frame),
        "digest": digest_of(columns),
        "digests": columns,
    }


def pack_parts(train: NDArray[np.bool_], test: NDArray[np.bool_]) -> bytes:
    """Which rows taught and which judged, as the bytes of `PARTS_FILE`."""
    return zlib.compress(np.packbits(np.concatenate([train, test])).tobytes())


@dataclass(frozen=True)
class Dataset:
    """The training set of a model version, as it was.

    Attributes:
        frame: the rows in the order in which they were: entities, time, inputs, `__target__` (if something was
            predicted), and `__part__`: `train` or `test` (if the rows were split).
        digest: of the rows without `__part__`; the same as when the version was trained.
        versions: of the tables that were read.
    """

    frame: pl.DataFrame
    digest: str
    versions: dict[str, int]


def rebuild_dataset(workspace: Workspace, version: ModelVersion | str) -> Dataset:
    """Make a version's training set again, and prove that it is the same, bit for bit.

    Args:
        workspace: the stores.
        version: a version, or its label: `late@2`, `late@champion`, `late` (its champion).

    Raises:
        NotFoundError: there is no such version, it keeps no training set, or a table's version is gone.
        DataError: an expression of it can't be made again.
        IntegrityError: what came of it isn't what the version was trained on.
    """
    registry = ModelRegistry.of(workspace)
    if isinstance(version, str):
        version = registry.get(version)
    kept = version.lineage.dataset
    if kept.get("format") != _FORMAT:
        raise NotFoundError(
            f"{version.label} keeps no training set", hint="it was trained by an older noria, or registered by hand"
        )
    try:
        frame, _ = selection_of(version).read(workspace)
    except (NotFoundError, StorageError) as error:
        read = ", ".join(f"{name} version {number}" for name, number in kept["versions"].items())
        raise NotFoundError(
            f"the training set of {version.label} can't be made again, a table's version is gone: {error.message}",
            hint=f"it was made of {read}: if files were vacuumed or deleted, bring them back from a backup",
        ) from error
    columns = digest_columns(frame)
    if digest_of(columns) != kept["digest"]:
        raise _other(version, kept, columns, len(frame), workspace)
    return Dataset(_with_parts(frame, registry, version), kept["digest"], dict(kept["versions"]))


def selection_of(version: ModelVersion) -> Selection:
    """The rows that a version was made of, as its record says.

    Raises:
        DataError: an expression of it can't be made again.
    """
    kept = version.lineage.dataset
    try:
        return Selection(
            kept["labels"],
            kept["versions"],
            kept["columns"],
            kept["time"],
            _loaded(kept, "target"),
            _loaded(kept, "where"),
            kept["present"],
            [group_of(one["name"], one["state"]) for one in kept["groups"]],
            [OnDemand.from_state(one) for one in kept["on_demand"]],
            kept["features"],
        )
    except NoriaError as error:
        raise DataError(
            f"the training set of {version.label} can't be made again: {error.message}",
            hint=f"it was trained with polars {version.lineage.code.get('polars', 'of another version')}: install that",
        ) from error


def _loaded(kept: dict[str, Any], name: str) -> pl.Expr | None:
    state = kept[name]
    if state is None:
        return None
    if "polars" not in state:
        raise DataError(f"its {name} is {state['text']}, and a Python function isn't kept")
    return loaded(state, by_row=False)


def parts_of(registry: ModelRegistry, version: ModelVersion, rows: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which of a version's rows taught and which judged; all False where it doesn't say."""
    if PARTS_FILE not in version.files:
        return np.zeros(rows, np.bool_), np.zeros(rows, np.bool_)
    packed = zlib.decompress(registry.files(version)[PARTS_FILE].read_bytes())
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=2 * rows).astype(np.bool_)
    return bits[:rows], bits[rows:]


def part_mask(frame: pl.DataFrame, part: Literal["train", "test"]) -> NDArray[np.bool_]:
    """Which rows of a rebuilt training set taught, or judged."""
    return (frame[PART] == part).fill_null(False).to_numpy()


def _with_parts(frame: pl.DataFrame, registry: ModelRegistry, version: ModelVersion) -> pl.DataFrame:
    if PARTS_FILE not in version.files:
        return frame
    train, test = (pl.Series(part) for part in parts_of(registry, version, len(frame)))
    return frame.with_columns(pl.when(train).then(pl.lit("train")).when(test).then(pl.lit("test")).alias(PART))


def _other(
    version: ModelVersion, kept: dict[str, Any], columns: dict[str, str], rows: int, workspace: Workspace
) -> IntegrityError:
    names = dict.fromkeys((*kept["digests"], *columns))
    different = [name for name in names if kept["digests"].get(name) != columns.get(name)]
    what = f"{rows:,} rows instead of {kept['rows']:,}" if rows != kept["rows"] else f"other {', '.join(different)}"
    now = code_state(workspace.settings.root)
    moved = [
        f"{name} {then} (now {now.get(name, 'none')})"
        for name, then in version.lineage.code.items()
        if name in ("noria", "numpy", "polars", "numba", "python") and now.get(name) != then
    ]
    hint = "a table's folder was made anew under the same name: bring the old one back from a backup"
    if moved:
        hint += f"; or other libraries compute otherwise: it was trained with {', '.join(moved)}"
    return IntegrityError(f"what {version.label} was trained on isn't there any more: {what}", hint=hint)
