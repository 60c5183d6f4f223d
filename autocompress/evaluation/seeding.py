"""Deterministic choices: which examples, and whose random numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch


def choose(
    size: int, n: int, seed: int, labels: npt.NDArray[np.int64] | None = None
) -> npt.NDArray[np.int64]:
    """``n`` of ``size`` indices, ascending; spread over ``labels`` in proportion when given.

    Every class gets its share of ``n`` rounded down; what is left goes to the largest remainders.
    """
    rng = np.random.default_rng(seed)
    if labels is None:
        return np.sort(rng.permutation(size)[:n])
    classes, counts = np.unique(labels, return_counts=True)
    shares = counts * (n / size)
    take = np.floor(shares).astype(np.int64)
    largest = np.argsort(-(shares - take), kind="stable")
    take[largest[: n - int(take.sum())]] += 1
    parts = [
        rng.permutation(np.flatnonzero(labels == c))[:k] for c, k in zip(classes, take, strict=True)
    ]
    return np.sort(np.concatenate(parts))


def seeded_iteration(
    source: Iterable[Any], seed: int, generator: torch.Generator | None = None
) -> Iterator[Any]:
    """Iterate ``source`` with torch's random numbers seeded, leaving the caller's untouched.

    Args:
        source: draws its randomness from torch's global generator, or from ``generator``.
        seed: where both start.
        generator: the source's own generator; its state is put back at the end.
    """
    own = None if generator is None else generator.get_state()
    glob = torch.default_generator
    outside = glob.get_state()
    ours = True  # whose numbers the global generator holds: the source's, or the caller's
    glob.manual_seed(seed)
    if generator is not None:
        generator.manual_seed(seed)
    try:
        for item in source:
            inside = glob.get_state()
            glob.set_state(outside)
            ours = False
            yield item
            outside = glob.get_state()
            glob.set_state(inside)
            ours = True
    finally:
        if ours:
            glob.set_state(outside)
        if generator is not None and own is not None:
            generator.set_state(own)
