"""The loops that numba compiles, and how they use every core.

Each kernel works on a block of rows, reads shared arrays and writes only its own rows, so that its result doesn't
depend on the number of threads. It releases the GIL, and plain Python threads run the blocks: numba's own parallel
loops would go through one threading layer per process, which (workqueue) aborts when two components train at once
or (OpenMP) breaks in a forked child; they also take several times as long to compile.

All kernels live in this one file because numba's cache on disk notices a change of a kernel's own file only.
"""

# mypy: allow-untyped-defs

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

# Sums may be reordered, which lets dot products use SIMD registers; NaN and infinity keep their meaning.
SIMD = {"reassoc", "contract", "nsz"}

Kernel = Callable[..., Any]


def kernel(fastmath: set[str] | bool = False) -> Callable[[Kernel], Kernel]:
    """Compile a function on its first call; the machine code is kept on disk where any cache folder is writable."""
    options: dict[str, Any] = {"nogil": True, "fastmath": fastmath, "error_model": "numpy"}

    def lazily(function: Kernel) -> Kernel:
        try:
            compiled: Kernel = numba.njit(cache=True, **options)(function)
        except RuntimeError:  # a read-only installation and no home: compile anew in each process
            compiled = numba.njit(**options)(function)
        return compiled

    return lazily


def over_rows(work: Callable[[int, int], object], cost: NDArray[Any]) -> None:
    """Call `work(start, stop)` for blocks of rows that cost about the same, on all cores.

    Args:
        work: fills the rows from `start` to before `stop`; releases the GIL.
        cost: [rows + 1] the cost of all rows before each row, rising from 0.
    """
    threads = len(os.sched_getaffinity(0))
    cuts = np.searchsorted(cost, np.linspace(0, cost[-1], 8 * threads + 1)[1:-1])
    edges = np.unique(np.r_[0, cuts, len(cost) - 1])
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, int(a), int(b)) for a, b in pairwise(edges)]:
            done.result()


@kernel(fastmath=SIMD)
def _dot(a, b):
    total = np.float32(0.0)
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@kernel()
def _copy(target, a):
    for i in range(len(target)):
        target[i] = a[i]


@kernel(fastmath=SIMD)
def _add(target, scale, a):
    for i in range(len(target)):
        target[i] += scale * a[i]


@kernel(fastmath=SIMD)
def als_rows(start, stop, solved, fixed, gram, indptr, indices, weights, alpha, regularization, steps):
    """Improve rows of `solved` by conjugate-gradient steps from where they are, the other side being `fixed`.

    The system of a row x is (gram + ridge I + sum a y y') x = sum (1 + a) y over the row's entries, where
    a = alpha * weight and ridge = regularization * sum a.
    """
    longest = 0
    for row in range(start, stop):
        longest = max(longest, indptr[row + 1] - indptr[row])
    near = np.empty((longest, solved.shape[1]), np.float32)  # the row's factors, gathered once for all steps
    extra = np.empty(longest, np.float32)
    zero = np.zeros(solved.shape[1], np.float32)
    residual = np.empty(solved.shape[1], np.float32)
    direction = np.empty_like(residual)
    image = np.empty_like(residual)
    for row in range(start, stop):
        begin, count = indptr[row], indptr[row + 1] - indptr[row]
        x = solved[row]
        if count == 0:
            _copy(x, zero)
            continue
        ridge = np.float32(0.0)
        for k in range(count):
            _copy(near[k], fixed[indices[begin + k]])
            extra[k] = alpha * weights[begin + k]
            ridge += extra[k]
        ridge *= regularization
        _apply(residual, x, gram, ridge, near, extra, count)
        for i in range(len(x)):
            residual[i] = -residual[i]
        for k in range(count):
            _add(residual, np.float32(1.0) + extra[k], near[k])
        _copy(direction, residual)
        norm = _dot(residual, residual)
        for _ in range(steps):
            if norm < 1e-12:
                break
            _apply(image, direction, gram, ridge, near, extra, count)
            step = norm / _dot(direction, image)
            _add(x, step, direction)
            _add(residual, -step, image)
            before, norm = norm, _dot(residual, residual)
            turn = norm / before
            for i in range(len(x)):
                direction[i] = residual[i] + turn * direction[i]


@kernel(fastmath=SIMD)
def _apply(image, x, gram, ridge, near, extra, count):
    """Set `image` to the product of a row's matrix and x."""
    for i in range(len(x)):
        image[i] = _dot(gram[i], x) + ridge * x[i]
    for k in range(count):
        _add(image, extra[k] * _dot(near[k], x), near[k])


@kernel()
def similar_rows(start, stop, near, similarity, item_users, user_items, norms, shrink):
    """Fill rows of `near` and `similarity` with each item's nearest items, best first, padded with -1.

    `item_users` and `user_items` are `Rows`.
    """
    totals = np.empty(len(norms), np.float32)
    touched = np.empty(len(norms), np.int32)
    met_by = np.full(len(norms), -1, np.int32)
    for item in range(start, stop):
        count = 0
        for a in range(item_users.indptr[item], item_users.indptr[item + 1]):
            user, weight = item_users.indices[a], item_users.weights[a]
            for b in range(user_items.indptr[user], user_items.indptr[user + 1]):
                other = user_items.indices[b]
                if met_by[other] != item:
                    met_by[other], totals[other] = item, 0
                    touched[count] = other
                    count += 1
                totals[other] += weight * user_items.weights[b]
        row_near, row_similarity = near[item], similarity[item]
        size = 0
        for c in range(count):
            other = touched[c]
            if other != item:
                cosine = totals[other] / (norms[item] * norms[other] + shrink)
                size = _push(row_similarity, row_near, size, np.float32(cosine), other)
        _finish(row_similarity, row_near, size)


@kernel()
def neighbour_scores(scores, users, user_items, near_indptr, near, similarity):
    """Add to each user's row of `scores` the similarities of the neighbours of the items in the user's history."""
    for row in range(len(users)):
        user = users[row]
        for a in range(user_items.indptr[user], user_items.indptr[user + 1]):
            item, weight = user_items.indices[a], user_items.weights[a]
            for b in range(near_indptr[item], near_indptr[item + 1]):
                scores[row, near[b]] += weight * similarity[b]


@kernel()
def top_rows(best, items, scores, seen_indptr, seen_indices, users):
    """Fill rows of `best` and `items` with each row's highest scores, skipping the user's seen items."""
    for row in range(len(users)):
        at, end = seen_indptr[users[row]], seen_indptr[users[row] + 1]
        row_best, row_items, row_scores = best[row], items[row], scores[row]  # a view per item would cost more
        size = 0
        for item in range(len(row_scores)):
            if at < end and seen_indices[at] == item:  # both rise, so one pointer keeps up
                at += 1
                continue
            score = row_scores[item]
            worst = row_best[0] if size == len(row_best) else -np.inf  # an equal one that came first stays
            if score > worst:  # neither NaN nor minus infinity
                size = _push(row_best, row_items, size, score, np.int32(item))
        _finish(row_best, row_items, size)


@kernel()
def _worse(score, item, other_score, other_item):
    return score < other_score or (score == other_score and item > other_item)


@kernel()
def _sink(scores, items, size):
    """Let the root of a heap, whose root is the worst, sink to its place."""
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            return
        if child + 1 < size and _worse(scores[child + 1], items[child + 1], scores[child], items[child]):
            child += 1
        if not _worse(scores[child], items[child], scores[at], items[at]):
            return
        scores[at], scores[child] = scores[child], scores[at]
        items[at], items[child] = items[child], items[at]
        at = child


@kernel()
def _push(scores, items, size, score, item):
    """Offer an item to a heap that keeps the best `len(scores)`; returns the new size."""
    if size == len(scores):
        if _worse(scores[0], items[0], score, item):
            scores[0], items[0] = score, item
            _sink(scores, items, size)
        return size
    at = size
    while at > 0 and _worse(score, item, scores[(at - 1) // 2], items[(at - 1) // 2]):
        scores[at], items[at] = scores[(at - 1) // 2], items[(at - 1) // 2]
        at = (at - 1) // 2
    scores[at], items[at] = score, item
    return size + 1


@kernel()
def _finish(scores, items, size):
    """Sort a heap, best first, and pad it with item -1 and score -inf."""
    for last in range(size - 1, 0, -1):
        scores[0], scores[last] = scores[last], scores[0]
        items[0], items[last] = items[last], items[0]
        _sink(scores, items, last)
    for at in range(size, len(scores)):
        scores[at], items[at] = -np.inf, -1
