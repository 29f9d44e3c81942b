"""search: the best parameters of an estimator (`tune`), or the best estimator as well (`Auto`)."""

from typing import TYPE_CHECKING

from noria.core.lazy import exports

if TYPE_CHECKING:
    from noria.training.search.auto import Auto
    from noria.training.search.spaces import choice, integer, log, uniform
    from noria.training.search.tuning import Tuned, tune

_ORIGIN = {
    "Auto": "auto",
    "Tuned": "tuning",
    "choice": "spaces",
    "integer": "spaces",
    "log": "spaces",
    "tune": "tuning",
    "uniform": "spaces",
}

__all__ = ["Auto", "Tuned", "choice", "integer", "log", "tune", "uniform"]

__getattr__ = exports(__name__, _ORIGIN)
