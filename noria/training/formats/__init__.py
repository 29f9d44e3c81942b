"""formats: a fitted estimator as files, and back, to the bit.

`keep` chooses the first format that can hold the estimator: the library's own file (LightGBM's text, XGBoost's UBJSON,
CatBoost's cbm, safetensors for PyTorch, ONNX), then skops for scikit-learn. None of them runs code when it is read. A
pickle does, so it is the last, and both `keep` and `restore` refuse it in a project that doesn't trust its registry's
pickles. What is kept tells the libraries that it needs; `restore` compares their versions before it reads a byte.
"""

from typing import TYPE_CHECKING

from noria.core.lazy import exports

if TYPE_CHECKING:
    from noria.training.formats.format import Format, Kept, UnkeepableError
    from noria.training.formats.keeping import check, estimator_of, keep, restore

_ORIGIN = {
    "Format": "format",
    "Kept": "format",
    "UnkeepableError": "format",
    "check": "keeping",
    "estimator_of": "keeping",
    "keep": "keeping",
    "restore": "keeping",
}

__all__ = ["Format", "Kept", "UnkeepableError", "check", "estimator_of", "keep", "restore"]

__getattr__ = exports(__name__, _ORIGIN)
