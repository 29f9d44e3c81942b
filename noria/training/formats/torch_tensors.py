"""PyTorch: the weights as safetensors, and the layers as JSON: names of PyTorch's own classes with their parameters."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from noria.training.formats.facts import FILE, damaged, dump_facts, load_facts
from noria.training.formats.format import UnkeepableError, type_name

TENSORS = "model.safetensors"
ESTIMATOR = "noria.training.torch_module.TorchModule"
_FITTED = ("classes_", "_mean", "_scale", "best_epoch_", "n_features_in_")
_LAYERS: dict[str, tuple[str, ...]] = {
    "Linear": ("in_features", "out_features"),
    "Dropout": ("p",),
    "BatchNorm1d": ("num_features", "eps", "momentum", "affine", "track_running_stats"),
    "LayerNorm": ("normalized_shape", "eps", "elementwise_affine"),
    "LeakyReLU": ("negative_slope",),
    "ELU": ("alpha",),
    "GELU": ("approximate",),
    "ReLU": (),
    "SiLU": (),
    "Sigmoid": (),
    "Tanh": (),
    "Identity": (),
}
"""Layers that are made again, with the parameters that make them."""


class TorchTensors:
    """Keeps the `Format` contract for `TorchModule`: a sequence of PyTorch's layers, nested or not."""

    name = "torch"
    files: tuple[str, ...] = (TENSORS, FILE)

    def takes(self, estimator: Any) -> bool:
        return type_name(estimator) == ESTIMATOR

    def libraries(self, estimator: Any) -> set[str]:
        return {"torch", "safetensors"}

    def dump(self, estimator: Any) -> dict[str, bytes]:
        from safetensors.torch import save

        if not hasattr(estimator, "module_"):
            raise UnkeepableError("it isn't fitted")
        facts = {
            "class": ESTIMATOR,
            "parameters": {name: value for name, value in estimator.get_params().items() if name != "make"},
            "fitted": {name: getattr(estimator, name) for name in _FITTED if hasattr(estimator, name)},
            "layers": _described(estimator.module_),
        }
        data = save({name: tensor.contiguous() for name, tensor in estimator.module_.state_dict().items()})
        return {TENSORS: data, FILE: dump_facts(facts, data)}

    def load(self, files: Mapping[str, Path]) -> Any:
        from safetensors.torch import load

        facts = load_facts(files[FILE], files[TENSORS], "class", "parameters", "fitted", "layers")
        if facts["class"] != ESTIMATOR:
            raise damaged(f"{facts['class']} is not {ESTIMATOR}")
        module = _made(facts["layers"])
        try:
            module.load_state_dict(load(files[TENSORS].read_bytes()))
        except RuntimeError as error:
            raise damaged(f"the weights don't fit the layers: {error}") from error
        estimator = import_module("noria.training.torch_module").TorchModule(**facts["parameters"])
        for name in _FITTED:
            if name in facts["fitted"]:
                setattr(estimator, name, facts["fitted"][name])
        estimator.module_ = module.eval()
        return estimator


def _described(module: Any) -> dict[str, Any]:
    """A module as its class, its parameters, and the layers inside."""
    kind = type(module)
    if kind.__module__.startswith("torch.nn.modules.") and kind.__name__ == "Sequential":
        return {"kind": "Sequential", "layers": [_described(layer) for layer in module]}
    if not kind.__module__.startswith("torch.nn.modules.") or kind.__name__ not in _LAYERS:
        raise UnkeepableError(f"its module has a {type_name(module)}")
    options = {name: getattr(module, name) for name in _LAYERS[kind.__name__]}
    if kind.__name__ in ("Linear", "LayerNorm"):
        options["bias"] = module.bias is not None
    return {"kind": kind.__name__, "options": options}


def _made(layer: Mapping[str, Any]) -> Any:
    """The reverse; of known names only, so that a file can't name what is run."""
    from torch import nn

    if layer["kind"] == "Sequential":
        return nn.Sequential(*(_made(one) for one in layer["layers"]))
    if layer["kind"] not in _LAYERS:
        raise damaged(f"{layer['kind']} is no layer that is known")
    return getattr(nn, layer["kind"])(**layer["options"])
