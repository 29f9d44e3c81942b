"""`noria models dataset`, `noria recommend` and `noria predict`."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import msgspec

from noria.cli.project import load_system
from noria.cli.show import json_out, out, say, table
from noria.cli.whole import whole
from noria.core import ConfigError, NoriaError, NotFoundError, RequestError, Settings
from noria.registry import ModelRegistry, ModelVersion
from noria.serving import Servable, load_servable
from noria.storage import Workspace


def dataset(options: Namespace) -> int:
    """Rebuild a version's training set, verify it, and write it."""
    from noria.training import rebuild_dataset

    with Workspace.open(Settings.load(options.project)) as workspace:
        version = ModelRegistry.of(workspace).get(options.label)
        made = rebuild_dataset(workspace, version)
    if options.out:
        with whole(Path(options.out)) as half:
            made.frame.write_parquet(half)
    if options.json:
        found = {"model": version.label, "same": True, "digest": made.digest, "versions": made.versions}
        json_out({**found, "rows": len(made.frame), "columns": made.frame.columns, "file": options.out})
        return 0
    read = ", ".join(f"{name} version {number}" for name, number in made.versions.items())
    out(f"{version.label}  {len(made.frame):,} rows, {made.frame.width} columns, made of {read}")
    out(f"  the same, bit for bit: SHA-256 {made.digest}")
    if options.out:
        out(f"  written to {options.out}")
    return 0


def recommend(options: Namespace) -> int:
    """Answer one user's request in this process, with the same code as the server."""
    with Workspace.open(Settings.load(options.project)) as workspace:
        servable = _servable(workspace, "recommend", options.model)
        answer = _recommended(servable, options.user, options.k)
        if options.json:
            json_out(answer)
            return 0
        items = _item_rows(workspace, options.project, servable.model, [item["item_id"] for item in answer["items"]])
    if answer.get("cold"):
        say(f"user {options.user} is not known: these are the popular items")
    texts = sorted({column for row in items.values() for column in row})
    rows = [
        (n, str(item["item_id"]), item["score"], *(items.get(item["item_id"], {}).get(t) for t in texts))
        for n, item in enumerate(answer["items"], 1)
    ]
    out(table(("#", "item_id", "score", *texts), rows, ("#", "item_id", "score")))
    return 0


def predict(options: Namespace) -> int:
    """Predict for a file's rows with the same code as the server."""
    from noria.cli.rows import read_rows, write_rows

    with Workspace.open(Settings.load(options.project)) as workspace:
        servable = _servable(workspace, "predict", options.model)
        rows = read_rows(options.file)
        write_rows(rows, servable, as_json=options.json, out=sys.stdout)
    return 0


def _servable(workspace: Workspace, operation: str, label: str | None) -> Servable:
    registry = ModelRegistry.of(workspace)
    version = registry.get(label) if label else _only(registry, operation)
    servable = load_servable(version, workspace)
    if operation not in servable.operations:
        raise ConfigError(f"model {version.label} can't {operation}", hint=f"it can: {', '.join(servable.operations)}")
    return servable


def _only(registry: ModelRegistry, operation: str) -> ModelVersion:
    kind = {"recommend": "recommender", "predict": "tabular"}[operation]
    found = [registry.get(name) for name, aliases in registry.models().items() if "champion" in aliases]
    found = [version for version in found if version.servable == kind] or found
    if len(found) != 1:
        names = ", ".join(version.name for version in found)
        raise NotFoundError(
            f"there is {'more than one' if found else 'no'} model that can {operation}",
            hint=f"choose one with --model: {names}" if found else "call `noria run` first",
        )
    return found[0]


def _answer(servable: Servable, operation: str, request: dict[str, Any]) -> Any:
    decoded = servable.decode(operation, msgspec.json.encode(request))
    (answer,) = servable.answer(operation, [decoded])
    if isinstance(answer, Exception):
        raise answer
    return msgspec.to_builtins(answer)


def _item_rows(workspace: Workspace, project: str, model: str, ids: list[Any]) -> dict[Any, dict[str, Any]]:
    """The text columns of the recommended items, by item id; empty when the system has no table of items."""
    try:
        part = load_system(project)[model]
    except NoriaError:
        return {}
    items = getattr(part, "items", None)
    if items is None or items.key is None:
        return {}
    import polars as pl

    try:
        frame = workspace.table(items.name).read()
    except NoriaError:  # ids alone are an answer too
        return {}
    texts = [name for name, dtype in frame.schema.items() if dtype == pl.String and name != items.key]
    found = frame.filter(pl.col(items.key).is_in(ids)).select(items.key, *texts)
    return {row[items.key]: {t: row[t] for t in texts} for row in found.iter_rows(named=True)}


def _recommended(servable: Servable, user: str, k: int) -> Any:
    """The answer for a user whose id is a number or text, whichever the model's users have."""
    if user.removeprefix("-").isdecimal():
        try:
            return _answer(servable, "recommend", {"user_id": int(user), "k": k})
        except RequestError as error:
            if error.field != "user_id":
                raise
    return _answer(servable, "recommend", {"user_id": user, "k": k})
