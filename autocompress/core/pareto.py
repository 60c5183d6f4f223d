"""Pareto fronts and exact hypervolume, by minimisation; numpy only.

Everywhere ``losses`` is an array of shape ``(n, m)``: n points, m objectives, smaller is better.
A row with a value that is not finite is no result and is never on a front.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from autocompress.errors import RequestError

Losses: TypeAlias = npt.NDArray[np.float64]
Mask: TypeAlias = npt.NDArray[np.bool_]
Key = TypeVar("Key", bound=Hashable)


def _matrix(losses: npt.ArrayLike) -> Losses:
    array = np.asarray(losses, dtype=np.float64)
    if array.ndim == 1 and array.size == 0:
        array = array.reshape(0, 1)
    if array.ndim != 2 or (array.shape[1] == 0 and array.shape[0] > 0):
        raise RequestError(f"losses have shape {array.shape}; they must be (points, objectives)")
    return array


def non_dominated(losses: npt.ArrayLike) -> Mask:
    """Which rows are on the front, shape ``(n,)``.

    A row is dominated when another is no worse in every objective and better in one. Of exact
    duplicates only the first row is on the front. Rows with NaN or an infinity never are.

    Args:
        losses: shape ``(n, m)``, smaller is better.
    """
    array = _matrix(losses)
    mask = np.zeros(len(array), dtype=bool)
    finite = np.flatnonzero(np.isfinite(array).all(axis=1))
    if finite.size == 0:
        return mask
    unique, first = np.unique(array[finite], axis=0, return_index=True)  # sorted by column 0, 1 …
    mask[finite[first[_front_of_sorted(unique)]]] = True
    return mask


def _front_of_sorted(unique: Losses) -> npt.NDArray[np.int64]:
    """Indices of the front of distinct rows in lexicographic order.

    No row is dominated by a later one, so the first that is left is on the front; column 0 needs
    no comparison.
    """
    if unique.shape[1] == 1:
        return np.zeros(1, dtype=np.int64)
    rest = unique[:, 1:]
    if rest.shape[1] == 1:
        best = np.minimum.accumulate(rest[:, 0])
        return np.flatnonzero(np.append(True, rest[1:, 0] < best[:-1]))
    front = []
    left = np.arange(len(unique))
    while left.size:
        front.append(left[0])
        left = left[np.any(rest[left] < rest[left[0]], axis=1)]
    return np.array(front, dtype=np.int64)


def ranks(losses: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Rank of the front each row belongs to, from 0, shape ``(n,)``.

    Exact duplicates share a rank; rows that are not finite share the one after the last.
    The fronts are those of the fast non-dominated sort of Deb et al. 2002
    (doi:10.1109/4235.996017).

    Args:
        losses: shape ``(n, m)``, smaller is better.
    """
    array = _matrix(losses)
    result = np.zeros(len(array), dtype=np.int64)
    finite = np.isfinite(array).all(axis=1)
    unique, inverse = np.unique(array[finite], axis=0, return_inverse=True)
    unique_rank = np.zeros(len(unique), dtype=np.int64)
    left = np.arange(len(unique))
    rank = 0
    while left.size:
        front = _front_of_sorted(unique[left])
        unique_rank[left[front]] = rank
        left = np.delete(left, front)
        rank += 1
    result[finite] = unique_rank[inverse.reshape(-1)]
    result[~finite] = rank
    return result


def crowding(losses: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Crowding distance of each row among all rows given, shape ``(n,)``; larger is lonelier.

    The outermost rows of an objective that varies get infinity (Deb et al. 2002,
    doi:10.1109/4235.996017, section III-B). Call it on one front at a time.

    Args:
        losses: shape ``(n, m)``, finite.
    """
    array = _matrix(losses)
    distance = np.zeros(len(array))
    for column in array.T:
        order = np.argsort(column, kind="stable")
        values = column[order]
        if len(values) == 0 or values[0] == values[-1]:
            continue
        padded = np.concatenate([[-np.inf], values, [np.inf]])
        distance[order] += (padded[2:] - padded[:-2]) / (values[-1] - values[0])
    return distance


def hypervolume(losses: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Exact volume that the rows dominate, up to ``reference``; one to four objectives.

    Two objectives: a sweep. Three: the staircase of the sweep at every level at once. Four: slices
    along the last objective, each a volume of three (hypervolume by slicing objectives: While et
    al. 2006, doi:10.1109/TEVC.2005.851275). Cost O(n log n), O(n^2) and O(n^3) in the front's n.

    Args:
        losses: shape ``(n, m)``, smaller is better; rows that are not finite, or not better than
            the reference in every objective, add nothing.
        reference: shape ``(m,)``, finite: the worst point that counts.

    Raises:
        RequestError: shapes do not match, or m is not in 1..4.
    """
    array = _matrix(losses)
    corner = np.asarray(reference, dtype=np.float64)
    if corner.ndim != 1 or not np.isfinite(corner).all() or not 1 <= corner.size <= 4:
        raise RequestError(f"reference is {reference!r}; give one to four finite losses")
    if len(array) == 0:
        return 0.0
    if array.shape[1] != corner.size:
        raise RequestError(
            f"losses have {array.shape[1]} objectives, the reference point has {corner.size}"
        )
    array = array[np.isfinite(array).all(axis=1)]
    array = array[(array < corner).all(axis=1)]
    if len(array) == 0:
        return 0.0
    return _volume(np.unique(array[non_dominated(array)], axis=0), corner)


def largest_gains(
    losses: npt.ArrayLike, reference: npt.ArrayLike, count: int, *, given: npt.ArrayLike = ()
) -> list[int]:
    """Rows that one by one add most to the volume dominated by ``given`` and those before them.

    Greedy hypervolume subset selection, at least 63 % as good as the best subset (Guerreiro et al.
    2016, doi:10.1162/EVCO_a_00188). Ends early when no row adds anything.

    Args:
        losses: shape ``(n, m)``, smaller is better; or ``(d, n, m)``: so many equally likely
            outcomes of the same rows, over which the mean of the volumes counts.
        reference: shape ``(m,)``, as in :func:`hypervolume`.
        count: how many rows at most.
        given: shape ``(k, m)``: what is there already.

    Raises:
        RequestError: shapes do not match, or m is not in 1..4.
    """
    array = np.asarray(losses, dtype=np.float64)
    draws = [_matrix(draw) for draw in (array if array.ndim == 3 else array[None])]
    if not draws or not len(draws[0]):
        return []
    there = _matrix(given)
    there = there if len(there) else np.empty((0, draws[0].shape[1]))
    if there.shape[1] != draws[0].shape[1]:
        raise RequestError(
            f"losses have {draws[0].shape[1]} objectives, what is given has {there.shape[1]}"
        )
    held = [there] * len(draws)
    volume = hypervolume(there, reference)
    corner = np.asarray(reference, dtype=np.float64)
    promising = np.any([non_dominated(d) & (d < corner).all(axis=1) for d in draws], axis=0)
    left = [int(i) for i in np.flatnonzero(promising)]
    chosen: list[int] = []
    while left and len(chosen) < count:
        totals = [
            float(
                np.mean(
                    [
                        hypervolume(np.vstack([front, draw[i]]), reference)
                        for front, draw in zip(held, draws, strict=True)
                    ]
                )
            )
            for i in left
        ]
        best = int(np.argmax(totals))
        if totals[best] <= volume + 1e-12 * abs(volume):  # means of equal numbers differ as much
            break
        volume = totals[best]
        chosen.append(left.pop(best))
        held = [
            _front(np.vstack([front, draw[chosen[-1]]]))
            for front, draw in zip(held, draws, strict=True)
        ]
    return chosen


def _front(losses: Losses) -> Losses:
    return losses[non_dominated(losses)]


def _volume(front: Losses, corner: Losses) -> float:
    """Hypervolume of distinct rows in lexicographic order, all better than ``corner``."""
    objectives = corner.size
    if objectives == 1:
        return float(corner[0] - front[0, 0])
    if objectives == 2:
        lowest = np.minimum.accumulate(front[:, 1])
        widths = np.diff(front[:, 0], append=corner[0])
        return float(widths @ (corner[1] - lowest))
    if objectives == 3:
        return _volume_of_three(front, corner)
    return _volume_by_slices(front, corner)


def _volume_of_three(front: Losses, corner: Losses) -> float:
    by_second = np.argsort(front[:, 1], kind="stable")
    heights = np.zeros((len(front), len(front)))  # [second objective, first objective]
    heights[np.arange(len(front)), by_second] = corner[2] - front[by_second, 2]
    heights = np.maximum.accumulate(np.maximum.accumulate(heights, axis=0), axis=1)
    first = np.diff(front[:, 0], append=corner[0])
    second = np.diff(front[by_second, 1], append=corner[1])
    return float(second @ heights @ first)


def _volume_by_slices(front: Losses, corner: Losses) -> float:
    order = np.argsort(front[:, -1], kind="stable")
    depths = np.diff(front[order, -1], append=corner[-1])
    total = 0.0
    slice_front = np.empty((0, corner.size - 1))
    for row, depth in zip(front[order, :-1], depths, strict=True):
        slice_front = np.unique(np.vstack([slice_front, row]), axis=0)
        slice_front = slice_front[_front_of_sorted(slice_front)]
        if depth > 0:
            total += float(depth) * _volume(slice_front, corner[:-1])
    return total


class ParetoArchive(Generic[Key]):
    """The front of everything added so far, kept up to date one point at a time.

    Adding costs O(front), whatever was added before. It agrees with :func:`non_dominated`:
    the first of exact duplicates stays; losses that are not finite never enter.
    """

    def __init__(self, objectives: int) -> None:
        self._losses: Losses = np.empty((0, objectives))
        self._keys: list[Key] = []

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def losses(self) -> Losses:
        """The front, shape ``(len(self), objectives)``, in the order it was added; a copy."""
        return self._losses.copy()

    @property
    def keys(self) -> list[Key]:
        """The key of each row of :attr:`losses`."""
        return list(self._keys)

    def add(self, losses: npt.ArrayLike, key: Key) -> bool:
        """Add a point; whether it is now on the front.

        Args:
            losses: shape ``(objectives,)``.
            key: what the point is called.

        Raises:
            RequestError: the wrong number of objectives.
        """
        row = np.asarray(losses, dtype=np.float64)
        if row.shape != (self._losses.shape[1],):
            raise RequestError(
                f"losses have shape {row.shape}; the archive holds {self._losses.shape[1]} "
                "objectives"
            )
        if not np.isfinite(row).all() or (self._losses <= row).all(axis=1).any():
            return False
        keep = np.flatnonzero(~(row <= self._losses).all(axis=1))
        self._losses = np.vstack([self._losses[keep], row])
        self._keys = [self._keys[i] for i in keep] + [key]
        return True

    def hypervolume(self, reference: npt.ArrayLike) -> float:
        """Exact hypervolume of the front, see :func:`hypervolume`."""
        return hypervolume(self._losses, reference)
