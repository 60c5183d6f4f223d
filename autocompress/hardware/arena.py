"""Where a memory planner puts tensors that do not all live at once: greedy by size, first fit.

The planner of TensorFlow Lite Micro (David et al. 2021, arXiv:2010.08678; its
``greedy_memory_planner.cc``): the largest tensor first, each at the lowest offset where it meets
none of those placed before it that live at the same time. Close to optimal in practice (Pisarchyk
and Lee 2020, arXiv:2001.03288). Written for many candidates at once.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[np.int64]


def greedy_offsets(sizes: Ints, first: Ints, last: Ints) -> Ints:
    """Offsets of tensors in their candidate's arena, all arrays of shape ``(candidates, tensors)``.

    Args:
        sizes: bytes, already aligned; 0 where a candidate lacks the tensor.
        first: step at which the tensor is made.
        last: last step at which it is read.
    """
    count, tensors = sizes.shape
    order = np.argsort(-sizes, axis=1, kind="stable")  # equal sizes stay in their order
    size, start, end = (np.take_along_axis(a, order, axis=1) for a in (sizes, first, last))
    offsets = np.zeros((count, tensors), dtype=np.int64)
    for place in range(1, tensors):
        wanted = size[:, place]
        if not wanted.any():
            break
        together = start[:, :place] <= end[:, place, None]
        together &= end[:, :place] >= start[:, place, None]
        low = offsets[:, :place]
        high = np.where(together, low + size[:, :place], -1)
        chosen = np.zeros(count, dtype=np.int64)
        while True:  # beyond everything in the way; nothing below the highest of them fits
            in_the_way = (low < (chosen + wanted)[:, None]) & (high > chosen[:, None])
            higher = np.where(in_the_way, high, chosen[:, None]).max(axis=1)
            if (higher == chosen).all():
                break
            chosen = higher
        offsets[:, place] = chosen
    found = np.empty_like(offsets)
    np.put_along_axis(found, order, offsets, axis=1)
    return found


def greedy_arena(sizes: Ints, first: Ints, last: Ints) -> Ints:
    """Bytes of each candidate's arena; arguments as in :func:`greedy_offsets`."""
    if not sizes.size:
        return np.zeros(len(sizes), dtype=np.int64)
    ends = np.where(sizes > 0, greedy_offsets(sizes, first, last) + sizes, 0)
    return np.asarray(ends.max(axis=1), dtype=np.int64)
