"""PyTorch's modules without pickles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from noria.core import ConfigError, DataError, Settings
from noria.training.formats import keep, restore

torch = pytest.importorskip("torch")
TorchModule = pytest.importorskip("noria.training.torch_module").TorchModule


def back(kept: Any, folder: Path) -> Any:
    for name, data in kept.files.items():
        (folder / name).write_bytes(data)
    return restore(kept.spec, {name: folder / name for name in kept.files}, Settings(), "model net@1")


def deeper(inputs: int, outputs: int) -> Any:
    nn = torch.nn
    inner = nn.Sequential(nn.Linear(inputs, 6, bias=False), nn.BatchNorm1d(6), nn.GELU(), nn.Dropout(0.2))
    return nn.Sequential(inner, nn.LayerNorm(6), nn.Linear(6, outputs))


class Own(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(inputs, outputs)

    def forward(self, rows: Any) -> Any:
        return self.layer(rows)


@pytest.mark.parametrize("make", [None, deeper])
@pytest.mark.parametrize("labels", ["numbers", "two", "three"])
def test_a_module_comes_back_to_the_bit(make: Any, labels: str, plain: Any, target: Any, tmp_path: Path) -> None:
    truth = {"numbers": target, "two": np.where(target > 1, "yes", "no"), "three": np.digitize(target, [0.0, 2.0])}
    model = TorchModule(make, hidden=(5,), epochs=1).fit(plain, truth[labels])
    kept = keep(model, Settings())
    assert kept.spec["format"] == "torch"
    made = back(kept, tmp_path)
    assert made.predict(plain).tolist() == model.predict(plain).tolist()
    if labels != "numbers":
        assert made.predict_proba(plain).tobytes() == model.predict_proba(plain).tobytes()


def test_a_module_of_ones_own_is_a_pickle(plain: Any, target: Any) -> None:
    with pytest.raises(ConfigError, match=r"its module has a .*\.Own"):
        keep(TorchModule(Own, epochs=1).fit(plain, target), Settings())


def test_weights_of_another_module_are_told(plain: Any, target: Any, tmp_path: Path) -> None:
    kept = keep(TorchModule(hidden=(5,), epochs=1).fit(plain, target), Settings())
    kept.files["model.safetensors"] = kept.files["model.safetensors"][:-4]
    with pytest.raises(DataError, match="not the file that was written"):
        back(kept, tmp_path)
