"""The compiled loops over trees, and the link functions of LightGBM and XGBoost as those compute them.

A node is `(threshold, column, step)`: a row at node i goes on to `i + step` if its value is not at most the threshold,
else to the node before that. A leaf has step 0 and no threshold (NaN), so that a row stays there: a level of a tree
costs the same few instructions whatever happens, without a branch to be mispredicted, and eight trees advance at once
while their nodes come from memory.

All kernels live in this one file because numba's cache on disk notices a change of a kernel's own file only.
"""

# mypy: allow-untyped-defs, allow-untyped-calls, disable-error-code="call-arg"

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

NODE = np.dtype([("threshold", "f8"), ("column", "i4"), ("step", "i4")])

FLOAT32, NO_INFINITY, NO_NAN, FLUSH, NEGATIVE_IS_LEFT = 1, 2, 4, 8, 16
"""Rules by which a library reads a row: see `Trees.rules`."""

BLOCK = 256
"""Rows that go through a tree while it is in the cache."""

LANES = 16
"""Rows that a tree takes together."""

_TINY = float(np.float32(1e-35))
_NAN = math.nan


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on the first call; the machine code is kept on disk where any cache folder is writable."""
    try:
        compiled: Callable[..., Any] = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # a read-only installation and no home: compile anew in each process
        compiled = numba.njit(nogil=True, error_model="numpy")(function)
    return compiled


@kernel
def _read(row, given, rules, zero_is_missing, set_features, set_starts, set_words):
    """Fill a row's columns, twice: where a missing value is NaN (goes right), and minus infinity (goes left).

    Returns whether the library would take the row.
    """
    count = len(given)
    columns = count + len(set_features)
    for f in range(count):
        value = given[f]
        if rules & FLOAT32:
            value = np.float64(np.float32(value))
        if (rules & NO_INFINITY and math.isinf(value)) or (rules & NO_NAN and math.isnan(value)):
            return False
        if rules & FLUSH and abs(value) <= _TINY:
            value = 0.0
        if zero_is_missing[f] and value == 0.0:
            value = _NAN
        row[f] = value
    for s in range(len(set_features)):
        row[count + s] = _side(row[set_features[s]], rules, set_words[set_starts[s] : set_starts[s + 1]])
    for c in range(columns):
        row[columns + c] = -math.inf if math.isnan(row[c]) else row[c]
    return True


@kernel
def _side(value, rules, words):
    """Where a categorical split sends a value: 0 left, 1 right, NaN to the side of missing values."""
    if math.isnan(value):
        return _NAN
    if rules & NEGATIVE_IS_LEFT:  # XGBoost: the set goes right, what is no category goes left
        if value < 0.0 or value >= 16777216.0:
            return 0.0
    elif value <= -1.0 or value >= 2147483648.0:  # LightGBM: the set goes left; -0.5 is cut to 0
        return 1.0
    category = np.int64(value)
    inside = category < 32 * len(words) and (words[category >> 5] >> np.uint32(category & 31)) & np.uint32(1)
    return 1.0 if bool(inside) == bool(rules & NEGATIVE_IS_LEFT) else 0.0


@kernel
def _read_all(flat, matrix, rules, zero_is_missing, set_features, set_starts, set_words):
    """The columns of rows one after another; whether the library would take them."""
    width = 2 * (matrix.shape[1] + len(set_features))
    for r in range(len(matrix)):
        row = flat[r * width : (r + 1) * width]
        if not _read(row, matrix[r], rules, zero_is_missing, set_features, set_starts, set_words):
            return False
    return True


@kernel
def _next(flat, base, nodes, i):
    node = nodes[i]
    return i + np.int64(node.step) - np.int64(flat[base + node.column] <= node.threshold)


@kernel
def _begin(out, start):
    for r in range(out.shape[0]):
        for k in range(out.shape[1]):
            out[r, k] = start[k]


@numba.njit(inline="always")
def _add(out, row, first, values, leaf):
    """Add a leaf's values to a row's outputs from the first on.

    Unsigned, since numba looks at each signed index whether it counts from the end; and most leaves have one value,
    which needs no loop. Both together halve the time of a whole forest.
    """
    row, first, leaf, one = np.uint64(row), np.uint64(first), np.uint64(leaf), np.uint64(1)
    out[row, first] += values[leaf, np.uint64(0)]
    for k in range(one, np.uint64(values.shape[1])):
        out[row, first + k] += values[leaf, k]


@kernel
def walk(matrix, rules, zero_is_missing, set_features, set_starts, set_words, nodes, values, targets, start, out):
    """Set `out` to `start` plus each tree's leaf, in the order of the trees; False if the library refuses a row."""
    width, trees = 2 * (matrix.shape[1] + len(set_features)), len(targets)
    flat = np.empty(min(len(matrix), BLOCK) * width)
    bases, at = np.empty(8, np.int64), np.empty(8, np.int64)
    for begin in range(0, len(matrix), BLOCK):
        rows = min(BLOCK, len(matrix) - begin)
        block = matrix[begin : begin + rows]
        if not _read_all(flat, block, rules, zero_is_missing, set_features, set_starts, set_words):
            return False
        _begin(out[begin : begin + rows], start)
        tree, row, next_tree, next_row, left = 0, 0, 0, 0, trees * rows
        while left > 0:
            count = min(8, left)
            for lane in range(8):  # a tree's rows one after another, then the next tree's
                at[lane], bases[lane] = next_tree, next_row * width
                if lane + 1 < count or count == 8:  # lanes that are left over repeat the last one
                    next_row += 1
                    if next_row == rows:
                        next_row, next_tree = 0, next_tree + 1
            moved = 1
            while moved != 0:
                moved = 0
                for lane in range(8):
                    i = at[lane]
                    at[lane] = _next(flat, bases[lane], nodes, i)
                    moved |= at[lane] ^ i
            for lane in range(count):
                _add(out, begin + row, targets[tree], values, at[lane])
                row += 1
                if row == rows:
                    row, tree = 0, tree + 1
            left -= count
    return True


@intrinsic
def _lowest_bit(_, word):
    def code(context, builder, signature, arguments):
        return builder.cttz(arguments[0], context.get_constant(types.boolean, 0))

    return types.uint64(word), code


@intrinsic
def _rule_out(_, bits, lanes, columns, thresholds, masks, begin, end):
    """Set `bits`, one word for each lane, to the leaves of a tree that its false comparisons rule out.

    A comparison is false where a lane's value is not at most the threshold. Written in LLVM's vectors because numba
    neither turns a loop over lanes into them nor keeps the lanes' words in registers for a whole tree.
    """

    def code(context, builder, signature, arguments):
        doubles, words = ir.VectorType(ir.DoubleType(), LANES), ir.VectorType(ir.IntType(64), LANES)

        def pointer(array: int, index: Any) -> Any:
            data = context.make_array(signature.args[array])(context, builder, arguments[array]).data
            return builder.gep(data, [index])

        def everywhere(value: Any, kind: Any) -> Any:
            undefined = ir.Constant(kind, ir.Undefined)
            one = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
            places = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
            return builder.shuffle_vector(one, undefined, places)

        none = ir.Constant(words, [0] * LANES)
        found = cgutils.alloca_once_value(builder, none)
        with cgutils.for_range_slice(builder, arguments[5], arguments[6], arguments[5].type(1)) as (i, _):
            column = builder.bitcast(pointer(1, builder.load(pointer(2, i))), doubles.as_pointer())
            values = builder.load(column, align=8)
            threshold = everywhere(builder.load(pointer(3, i)), doubles)
            mask = everywhere(builder.load(pointer(4, i)), words)
            above = builder.fcmp_unordered(">", values, threshold)  # also where it is NaN
            builder.store(builder.or_(builder.load(found), builder.select(above, mask, none)), found)
        place = builder.bitcast(pointer(0, arguments[5].type(0)), words.as_pointer())
        builder.store(builder.load(found), place, align=8)
        return context.get_dummy_value()

    return types.void(bits, lanes, columns, thresholds, masks, types.int64, types.int64), code


@kernel
def score(
    matrix, rules, zero_is_missing, set_features, set_starts, set_words, tree_starts, places, thresholds, masks,
    bases, values, targets, start, out,
):  # fmt: skip
    """The same as `walk`, by QuickScorer: of a tree's leaves, the first that no false comparison rules out."""
    columns = 2 * (matrix.shape[1] + len(set_features))
    row, lanes = np.empty(columns), np.empty(columns * LANES)
    bits = np.empty(LANES, np.uint64)
    for begin in range(0, len(matrix), LANES):
        count = min(LANES, len(matrix) - begin)
        for lane in range(LANES):
            given = matrix[begin + min(lane, count - 1)]
            if not _read(row, given, rules, zero_is_missing, set_features, set_starts, set_words):
                return False
            for c in range(columns):
                lanes[c * LANES + lane] = row[c]
        _begin(out[begin : begin + count], start)
        for t in range(len(bases)):
            _rule_out(bits, lanes, places, thresholds, masks, tree_starts[t], tree_starts[t + 1])
            for lane in range(count):
                _add(out, begin + lane, targets[t], values, np.uint64(bases[t]) + _lowest_bit(~bits[lane]))
    return True


@kernel
def lightgbm_sigmoid(x, scale):
    """`1 / (1 + exp(-scale * x))` in place."""
    for r in range(x.shape[0]):
        for k in range(x.shape[1]):
            x[r, k] = 1.0 / (1.0 + math.exp(-scale * x[r, k]))


@kernel
def lightgbm_softmax(x):
    """Each row's softmax in place, summed in the order of the classes."""
    for r in range(x.shape[0]):
        top, total = x[r].max(), 0.0
        for k in range(x.shape[1]):
            x[r, k] = math.exp(x[r, k] - top)
            total += x[r, k]
        for k in range(x.shape[1]):
            x[r, k] /= total


@kernel
def exponential(x):
    """`exp(x)` in place, by the C library, in the array's own precision."""
    for r in range(x.shape[0]):
        for k in range(x.shape[1]):
            x[r, k] = math.exp(x[r, k])


@kernel
def softplus(x):
    """`log1p(exp(x))` in place."""
    for r in range(x.shape[0]):
        for k in range(x.shape[1]):
            x[r, k] = math.log1p(math.exp(x[r, k]))


@kernel
def xgboost_sigmoid(x):
    """The logistic function in place, of float32 values that are cut so that the exponential stays finite."""
    for r in range(x.shape[0]):
        for k in range(x.shape[1]):
            grown = math.exp(min(-x[r, k], np.float32(88.7)))
            x[r, k] = np.float32(1.0) / (grown + np.float32(1.0) + np.float32(1e-16))


@kernel
def xgboost_softmax(x):
    """Each row's softmax in place, of float32 values with a float64 sum."""
    for r in range(x.shape[0]):
        top, total = x[r].max(), 0.0
        for k in range(x.shape[1]):
            x[r, k] = math.exp(x[r, k] - top)
            total += x[r, k]
        for k in range(x.shape[1]):
            x[r, k] /= np.float32(total)


@kernel
def xgboost_logit(p):
    """The float32 margin of a float32 probability."""
    return -math.log(np.float32(1.0) / p - np.float32(1.0))


@kernel
def xgboost_log(p):
    """The float32 margin of a float32 mean."""
    return math.log(p)
