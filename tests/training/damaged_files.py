"""Damages each file of kept models in many ways and reads it: an error of noria's, or a model that answers."""

from __future__ import annotations

import pickle
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np

from noria.core import DataError, Settings
from noria.training.formats import restore
from noria.training.formats.lightgbm_text import TEXT, read_booster

folder = Path(sys.argv[1])
random = np.random.default_rng(0)
rows = random.normal(size=(20, 8))
warnings.simplefilter("ignore")
told = answered = 0
for stored in sorted(folder.glob("*.pkl")):
    kept = pickle.loads(stored.read_bytes())
    for name, data in kept.files.items():
        ways = [data[: len(data) // 2], b"", b"junk\n", data[:-1], data + b"x", data[len(data) // 3 :]]
        ways += [data.replace(b"left_child=", b"left_child=9", 1), data.replace(b"tree_sizes=", b"tree_sizes=9")]
        ways += [
            data.replace(b"split_feature=", b"split_feature=7777", 1),
            data.replace(b"num_leaves=", b"num_leaves=9"),
        ]
        for _ in range(12):
            changed = bytearray(data)
            for place in random.integers(0, len(data), 3):
                changed[place] = random.integers(0, 256) if random.random() < 0.5 else random.integers(48, 58)
            ways.append(bytes(changed))
        for way in ways:
            files = {}
            for other, whole in kept.files.items():
                files[other] = folder / other
                files[other].write_bytes(way if other == name else whole)
            print(stored.name, name, len(way), flush=True)
            if name == TEXT:  # as somebody else's file, without facts
                with suppress(DataError):
                    read_booster(files[TEXT]).predict(rows)
            try:
                model = restore(kept.spec, files, Settings(), "model late@3")
            except DataError:
                told += 1
                continue
            answered += 1
            with suppress(Exception):  # rows of another number of columns; CatBoost reads some facts only now
                model.predict(rows)
print(f"told {told}, answered {answered}")
