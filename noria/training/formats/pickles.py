"""Pickles: they hold anything, and reading one runs whatever code its writer wanted."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from noria.core import ConfigError, DataError
from noria.training.formats.facts import damaged

FILE = "model.pkl"


class Pickle:
    """Keeps the `Format` contract for whatever can be pickled. `keep` and `restore` ask for trust first."""

    name = "pickle"
    files: tuple[str, ...] = (FILE,)

    def takes(self, estimator: Any) -> bool:
        return True

    def libraries(self, estimator: Any) -> set[str]:
        return {type(estimator).__module__.partition(".")[0]}

    def dump(self, estimator: Any) -> dict[str, bytes]:
        try:
            return {FILE: pickle.dumps(estimator, protocol=5)}
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ConfigError(
                f"the model {type(estimator).__name__} can't be saved: {error}",
                hint="define its class in a module, not in a function or in __main__",
            ) from error

    def load(self, files: Mapping[str, Path]) -> Any:
        try:
            return pickle.loads(files[FILE].read_bytes())
        except ModuleNotFoundError:
            raise  # a library is missing: said by who knows what the model was trained with
        except (ImportError, AttributeError) as error:
            raise DataError(
                f"the model file can't be loaded: {error}",
                hint="its class has moved, or a library has changed: train it again",
            ) from error
        except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError) as error:
            raise damaged(f"its {FILE} is no pickle: {error}") from error
