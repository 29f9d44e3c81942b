"""fast: predictions of a few rows without the libraries' slow paths, where a faster one gives the same bits.

`predictor_of` looks at a fitted estimator and gives what answers for it: a formula of ours that has been compared with
the library when it was made, or the library itself. Linear models are one product, trees one compiled loop.
"""

from typing import TYPE_CHECKING

from noria.core.lazy import exports

if TYPE_CHECKING:
    from noria.training.fast.predictor import FastPredictor, LibraryPredictor, Predictor, fast_predictor, predictor_of

_ORIGIN = {
    "FastPredictor": "predictor",
    "LibraryPredictor": "predictor",
    "Predictor": "predictor",
    "fast_predictor": "predictor",
    "predictor_of": "predictor",
}

__all__ = ["FastPredictor", "LibraryPredictor", "Predictor", "fast_predictor", "predictor_of"]

__getattr__ = exports(__name__, _ORIGIN)
