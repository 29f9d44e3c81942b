"""What a version remembers of its making, as plain JSON data: so that it can be made again without `system.py`.

An estimator is its class and its parameters. Of them only those are kept that come back exactly: numbers, text, lists,
and estimators in estimators; a function is nothing that data can say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

import numpy as np

from noria.core import DataError
from noria.pipelines import Step, steps, steps_from_dict
from noria.pipelines.blocks import Blocks
from noria.pipelines.steps import FittedStep
from noria.registry import Gate
from noria.training.categorical import library_model
from noria.training.estimator import Estimator

ESTIMATOR, SEED, GATES = "estimator", "seed", "gates"
_LONGEST = 10_000
"""Numbers in an array that is kept as text."""


class NotKeptError(Exception):
    """A parameter that data can't say; the text tells which."""


def remembered(gates: Sequence[Gate], estimator: Estimator, seed: int) -> dict[str, Any]:
    """What is kept beside the definition: the fitted estimator's parameters, the seed, and the gates.

    The parameters are those of the fitted estimator, not of the definition: a search has found them.
    """
    found: dict[str, Any] = {SEED: seed, GATES: [gate.to_dict() for gate in gates]}
    try:
        found[ESTIMATOR] = estimator_state(library_model(estimator))
    except NotKeptError as error:
        found[ESTIMATOR] = {"not_kept": str(error)}
    return found


def estimator_state(estimator: Any) -> dict[str, Any]:
    """The class and the parameters.

    Raises:
        NotKeptError: they can't be made again from data.
    """
    kind = type(estimator)
    if not hasattr(estimator, "get_params"):
        raise NotKeptError(f"{kind.__qualname__} has no get_params")
    if kind.__module__ == "__main__" or "<locals>" in kind.__qualname__:
        raise NotKeptError(f"the class {kind.__qualname__} is in no module")
    given = cast(Mapping[str, Any], estimator.get_params(deep=False))
    return {
        "class": f"{kind.__module__}:{kind.__qualname__}",
        "parameters": {name: _plain(value, name) for name, value in sorted(given.items())},
    }


def made_estimator(state: Mapping[str, Any]) -> Estimator:
    """An unfitted estimator of the reverse of `estimator_state`.

    Raises:
        DataError: it isn't kept, or its class isn't there or takes other parameters.
    """
    if "not_kept" in state:
        raise DataError(f"its estimator isn't kept: {state['not_kept']}")
    made = _made(state)
    if not (hasattr(made, "fit") and hasattr(made, "predict")):
        raise DataError(f"{state['class']} is no estimator")
    return cast(Estimator, made)


def _made(state: Mapping[str, Any]) -> Any:
    module, _, name = str(state["class"]).partition(":")
    try:
        kind: Any = import_module(module)
        for part in name.split("."):
            kind = getattr(kind, part)
    except (ImportError, AttributeError) as error:
        raise DataError(f"the class {state['class']} can't be imported: {error}") from error
    # A record may name any class there is: only those are called that describe themselves as estimators do.
    if not (isinstance(kind, type) and hasattr(kind, "get_params")):
        raise DataError(f"{state['class']} is no class with parameters")
    try:
        return kind(**{name: _value(value) for name, value in state["parameters"].items()})
    except TypeError as error:
        raise DataError(f"{state['class']} takes other parameters now: {error}") from error


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, (np.bool_, np.integer, np.floating)):
        return {"numpy": value.dtype.str, "value": _plain(value.item(), name)}
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, (list, tuple)):
        parts = [_plain(part, name) for part in value]
        return parts if isinstance(value, list) else {"tuple": parts}
    if isinstance(value, dict):
        return {"dict": [[_plain(key, name), _plain(part, name)] for key, part in value.items()]}
    if isinstance(value, np.ndarray) and value.size <= _LONGEST and value.dtype.kind in "biufU":
        return {"array": _plain(value.tolist(), name), "dtype": value.dtype.str}
    if hasattr(value, "get_params") and not isinstance(value, type):
        return estimator_state(value)
    raise NotKeptError(f"its parameter {name!r} is {value!r}")


def _value(state: Any) -> Any:
    if isinstance(state, list):
        return [_value(part) for part in state]
    if not isinstance(state, dict):
        return state
    if "numpy" in state:
        return np.dtype(state["numpy"]).type(_value(state["value"]))
    if "float" in state:
        return float(state["float"])
    if "tuple" in state:
        return tuple(_value(part) for part in state["tuple"])
    if "dict" in state:
        return {_value(key): _value(part) for key, part in state["dict"]}
    if "array" in state:
        return np.array(_value(state["array"]), dtype=state["dtype"])
    return _made(state)


@dataclass(frozen=True)
class KnownStep:
    """A step whose state is taken as it was: its definition can't be made again from what is kept."""

    fitted: FittedStep

    def fit(self, blocks: Blocks) -> FittedStep:
        return self.fitted

    def to_dict(self) -> dict[str, Any]:
        return self.fitted.to_dict()


def made_steps(definitions: Sequence[Mapping[str, Any]], fitted: Sequence[dict[str, Any]]) -> list[Step]:
    """Unfitted steps by their definitions; those that data can't say (expressions) as they were fitted."""
    found: list[Step] = []
    for place, (state, known) in enumerate(zip(fitted, steps_from_dict(fitted), strict=True)):
        made = _made_step(definitions[place]) if place < len(definitions) else None
        found.append(KnownStep(known) if made is None or made.to_dict()["step"] != state["step"] else made)
    return found


def _made_step(definition: Mapping[str, Any]) -> Step | None:
    kind = getattr(steps, str(definition.get("step")), None)
    given = {name: value for name, value in definition.items() if name != "step"}
    try:
        made = None if kind is None else cast(Step, kind(**given))
        return made if made is not None and made.to_dict() == dict(definition) else None
    except Exception:  # whatever it is, the state is there
        return None
