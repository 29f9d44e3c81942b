"""Steps: fitting and applying to millions of rows, and to one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

import noria as nr
from benchmarks.measure import markdown, median
from noria.pipelines import apply_steps, fit_blocks, fit_steps, row_function
from noria.pipelines.blocks import FrameBlocks

ROWS = 5_000_000
BLOCKS = 5


def run(rows: int = ROWS) -> str:
    return "\n\n".join([_batch(rows), _one_row()])


def _batch(rows: int) -> str:
    frame = example(rows)
    size = -(-rows // BLOCKS)
    blocks = FrameBlocks([frame[start : start + size] for start in range(0, rows, size)])
    numbers, texts = [f"x{n}" for n in range(4)], [f"c{n}" for n in range(4)]
    cases: dict[str, Any] = {
        "Impute median, 4 numbers": nr.Impute(numbers),
        "Impute mean, 4 numbers": nr.Impute(numbers, strategy="mean"),
        "Normalize standard, 4 numbers": nr.Normalize(numbers),
        "Normalize robust, 4 numbers": nr.Normalize(numbers, method="robust"),
        "Clip to quantiles, 4 numbers": nr.Clip(numbers, quantiles=(0.01, 0.99)),
        "Bucket by 10 quantiles, 4 numbers": nr.Bucket(numbers, quantiles=10),
        "Encode ordinal, 4 texts of 10 to 1,000 levels": nr.Encode(texts),
        "Encode frequency, 4 texts": nr.Encode(texts, method="frequency"),
        "Encode hash, 4 texts": nr.Encode(texts, method="hash"),
        "Encode target, 4 texts": nr.Encode(texts, method="target", target="x0"),
        "Derive x0 * 2 + x1 / 3": nr.Derive({"d": nr.col("x0") * 2 + nr.col("x1") / 3}),
        "Deduplicate by an integer": nr.Deduplicate(["k"], keep="last"),
        "ForwardFill 4 numbers by a text": nr.ForwardFill(numbers, by="c2"),
    }
    table = []
    for name, step in cases.items():
        fit, (fitted,) = timed(lambda step=step: fit_blocks([step], blocks))
        use, _ = timed(lambda fitted=fitted: [fitted.apply_to_fit(part, n) for n, part in enumerate(blocks.frames)])
        table.append((name, f"{fit:.2f}", f"{use:.2f}"))
    return markdown(f"Steps over {rows:,} rows", ("step", "fit, seconds", "apply, seconds"), table, f"{BLOCKS} blocks.")


def _one_row() -> str:
    table = []
    steps = [nr.Impute(), nr.Encode(), nr.Normalize([f"x{n}" for n in range(16)])]
    derive = nr.Derive({"d": nr.col("x0") * 2 + nr.col("x1") / 3})
    frame = pl.DataFrame(
        {f"x{n}": [1.0, None, 2.5, 4.0] for n in range(16)} | {f"c{n}": ["a", "b", None, "a"] for n in range(4)}
    )
    for name, chain in {"impute, encode, normalise": steps, "the same and a derived column": [derive, *steps]}.items():
        fitted, _ = fit_steps(chain, frame)
        transform, row = row_function(fitted, frame.schema), frame.row(1, named=True)
        mine = each(lambda transform=transform, row=row: transform(row), 5000)
        alone = each(lambda fitted=fitted: apply_steps(fitted, frame[1:2]), 200)
        table.append((name, f"{mine * 1e6:.1f}", f"{alone * 1e6:.0f}"))
    return markdown("Steps on one row of 20 columns", ("chain", "`row_function`, µs", "a frame of one row, µs"), table)


def example(rows: int) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {"k": rng.integers(0, rows, rows)}
    for n in range(4):
        values = rng.lognormal(size=rows)
        columns[f"x{n}"] = pl.Series(values).set(pl.Series(rng.random(rows) < 0.05), None)
    for n, levels in enumerate((10, 50, 200, 1000)):
        names = pl.Series([f"category {level}" for level in range(levels)])
        columns[f"c{n}"] = names.gather(rng.integers(0, levels, rows))
    return pl.DataFrame(columns)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    made = work()
    return time.perf_counter() - began, made


def each(work: Callable[[], Any], times: int) -> float:
    return median([timed(work)[0] for _ in range(times)])


if __name__ == "__main__":
    print(run())
