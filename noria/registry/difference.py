"""What makes two versions different, part by part: metrics, definition, inputs, features, data, libraries, files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from noria.registry.version import ModelVersion

Difference = dict[str, dict[str, tuple[Any, Any]]]
"""Part to name to what one and the other have; None where one hasn't it. Parts without a difference are left out."""

_APART = ("evaluation", "estimator", "features", "gates", "leakage", "notes")
"""Parameters that are told elsewhere, or twice."""


def difference(one: ModelVersion, other: ModelVersion) -> Difference:
    """Everything in which two versions differ, but for what differs always: number, run and time."""
    parts = {
        "metrics": (metric_values(one), metric_values(other)),
        "parameters": (_parameters(one), _parameters(other)),
        "inputs": (one.signature.inputs, other.signature.inputs),
        "features": (one.lineage.features, other.lineage.features),
        "data": (_data(one), _data(other)),
        "code": (one.lineage.code, other.lineage.code),
        "files": (_files(one), _files(other)),
    }
    found = {part: _different(*both) for part, both in parts.items()}
    return {part: names for part, names in found.items() if names}


def metric_values(version: ModelVersion) -> dict[str, float]:
    """The metrics without their intervals."""
    return {name: value[0] if isinstance(value, list) else value for name, value in version.metrics.items()}


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested data as one level, with names such as `model.parameters.C`; what is empty or None is left out.

    >>> flat({"model": {"C": 1.0, "penalty": None}, "steps": [{"step": "Impute"}]})
    {'model.C': 1.0, 'steps.1.step': 'Impute'}
    """
    if isinstance(value, Mapping):
        parts = [(str(key), part) for key, part in value.items()]
    elif isinstance(value, list) and any(isinstance(part, (Mapping, list)) for part in value):
        parts = [(str(place), part) for place, part in enumerate(value, 1)]
    else:
        return {} if value in (None, [], "") else {name: value}
    return {key: leaf for part, inner in parts for key, leaf in flat(inner, f"{name}.{part}".lstrip(".")).items()}


def _parameters(version: ModelVersion) -> dict[str, Any]:
    return flat({name: value for name, value in version.parameters.items() if name not in _APART})


def _data(version: ModelVersion) -> dict[str, Any]:
    tables = {f"{name} version": number for name, number in version.lineage.data.items()}
    kept = version.lineage.dataset
    return {**tables, **{name: kept[name] for name in ("rows", "digest") if name in kept}}


def _files(version: ModelVersion) -> dict[str, str]:
    return {name: f"{blob.size:,} bytes, {blob.digest[:12]}" for name, blob in version.files.items()}


def _different(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = dict.fromkeys((*one, *other))
    return {name: (one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)}
