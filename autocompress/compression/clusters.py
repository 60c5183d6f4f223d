"""Few values for many numbers: k-means on a line."""

from __future__ import annotations

import torch

#: Rounds of Lloyd's algorithm at the most.
_ROUNDS = 50


@torch.no_grad()
def cluster(numbers: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """``count`` values with a small squared distance to the numbers, and the index of each.

    Zeros among the numbers get the value 0 to themselves, the first. The others start evenly
    between the smallest and the largest number, which keeps the large ones (Han et al. 2016,
    arXiv:1510.00149), and move to the means of what is nearest to them. Values that nothing is near
    to repeat the last one, so that there are always as many.

    Args:
        numbers: any shape, at least one.
        count: 2 to 256.

    Returns:
        Values, float, shape ``(count,)``; indices, uint8, shape of ``numbers``.
    """
    flat = numbers.detach().flatten().double()
    zero = flat == 0
    others = flat[~zero]
    reserved = int(bool(zero.any()))
    values = _values(others, count - reserved)
    nearest = torch.searchsorted(_borders(values), others)
    held = torch.bincount(nearest, minlength=len(values))
    sums = torch.zeros_like(values).index_add_(0, nearest, others)
    values = torch.where(held > 0, sums / held.clamp_min(1), values)
    indices = torch.zeros(flat.shape, dtype=torch.uint8)
    indices[~zero] = (nearest + reserved).to(torch.uint8)
    table = torch.cat([values.new_zeros(reserved), values])
    table = torch.cat([table, table[-1:].expand(count - len(table))])
    return table.to(numbers.dtype), indices.reshape(numbers.shape)


@torch.no_grad()
def cluster_symmetric(numbers: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The same with values that come with both signs, whatever the signs of the numbers.

    Where the signs of some numbers change, the values stay and those numbers' indices change to
    the values of the other sign.

    Args:
        numbers: any shape, at least one.
        count: 3 to 256.
    """
    reserved = int(bool((numbers == 0).any()))
    half = (count - reserved) // 2
    sizes, nearest = cluster(numbers.abs(), half + reserved)
    sizes = sizes[reserved:]
    table = torch.cat([sizes.new_zeros(reserved), sizes, -sizes])
    table = torch.cat([table, table[-1:].expand(count - len(table))])
    indices = nearest.long() + torch.where(numbers < 0, half, 0)
    return table, indices.to(torch.uint8)


def _values(numbers: torch.Tensor, count: int) -> torch.Tensor:
    """Ascending means of neighbouring numbers, at most ``count`` of them."""
    if not len(numbers):
        return numbers
    ordered = numbers.sort().values
    sums = torch.cat([ordered.new_zeros(1), ordered.cumsum(0)])
    values = torch.linspace(float(ordered[0]), float(ordered[-1]), count, dtype=ordered.dtype)
    values = torch.unique(values)
    for _ in range(_ROUNDS):
        inner = torch.searchsorted(ordered, _borders(values), right=True)
        ends = torch.cat([inner.new_zeros(1), inner, inner.new_full((1,), len(ordered))])
        held = ends[1:] - ends[:-1]
        filled = held > 0
        means = (sums[ends[1:]] - sums[ends[:-1]])[filled] / held[filled]
        if len(means) == len(values) and torch.equal(means, values):
            break
        values = means
    return values


def _borders(values: torch.Tensor) -> torch.Tensor:
    """Where the nearest value changes."""
    return (values[1:] + values[:-1]) / 2
