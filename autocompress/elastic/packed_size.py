"""Bytes of the entropy-coded file, estimated without exporting or packing anything.

A layer's codes are counted in some channels of its weight as it is now, each way of storing it on
its own; narrower candidates and factors are taken to need as many bits a weight. What names, types
and shapes take was fitted to 90 packed files of three spaces, candidates drawn at random (3 to
100 kB; root mean square of the error 3 %, largest error 10 %).
"""

from __future__ import annotations

from functools import cache
from math import prod

import torch

from autocompress.compression.patterns.registry import make_pattern
from autocompress.compression.stored.registry import weight_form
from autocompress.core.candidate import UNSTRUCTURED
from autocompress.elastic.model import ElasticModel
from autocompress.graph.ops import Op

#: Bytes besides the data, once coded: of a file; of an operation; of a layer that computes in
#: integers, and of one with a codebook, besides.
FILE_BYTES = 143.0
OPERATION_BYTES = 46.0
INTEGER_LAYER_BYTES = 44.0
CODEBOOK_BYTES = 14.0
#: Bytes that a float (a scale, a bias, a value of a codebook) takes once coded.
NUMBER_BYTES = 3.7
#: So many weights of a layer stand for all of them.
_SAMPLE = 1 << 13


class PackedSizes:
    """Bytes that operations add to the packed file, from the weights that an elastic model has.

    Args:
        elastic: its weights are read when a way of storing them is first asked for, and not again.
    """

    def __init__(self, elastic: ElasticModel) -> None:
        self._elastic = elastic
        self._coded = cache(self._count)

    def __call__(self, op: Op | None) -> float:
        """Bytes of one operation, or, given None, of a file without operations."""
        if op is None:
            return FILE_BYTES
        if op.kind in ("input", "output"):
            return 0.0
        if not op.weight_shape or op.layer is None or op.attribute("again"):
            return OPERATION_BYTES
        count, channels = prod(op.weight_shape), op.weight_shape[0]
        codebook = op.codebook or None
        # of a factor, which only a candidate has, random numbers stand for the weight
        layer = op.layer if op.layer in self._elastic.layers else None
        bits, values = self._coded(layer, op.weight_bits, codebook, op.sparsity)
        bias = bool(op.attribute("bias", 1))
        scaled = op.is_integer_layer or (op.weight_bits < 16 and not codebook)
        numbers = channels * (bias + (scaled or bool(op.attribute("scaled"))))
        values = min(values, count)
        total = OPERATION_BYTES + count * bits / 8 + numbers * NUMBER_BYTES
        if codebook:
            total += CODEBOOK_BYTES + values * (1.0 if op.is_integer_layer else NUMBER_BYTES)
        return total + (INTEGER_LAYER_BYTES if op.is_integer_layer else 0.0)

    def _count(
        self, layer: str | None, weight_bits: int, codebook: int | None, sparsity: float
    ) -> tuple[float, int]:
        """Bits that a weight takes, and how many different values there are."""
        weight = self._weight(layer)
        if sparsity > 0:
            weight = weight * make_pattern(UNSTRUCTURED).mask(weight.abs(), sparsity)
        if weight_bits == 32 and codebook is None:
            return _entropy_of_bytes(weight), 0
        with torch.no_grad():
            stored = weight_form(weight, weight_bits, codebook=codebook).stored(weight, None)
        if stored.codes.is_floating_point():
            return _entropy_of_bytes(stored.codes), 0
        return _entropy(stored.codes), len(torch.unique(stored.codes))

    def _weight(self, layer: str | None) -> torch.Tensor:
        """Some output channels of the layer, evenly spaced; random numbers without a layer."""
        if layer is None:
            return torch.randn((_SAMPLE >> 8, 1 << 8), generator=torch.Generator().manual_seed(0))
        weight = self._elastic.layers[layer].weight.detach()
        return weight[:: -(-weight.numel() // _SAMPLE)]


def _entropy(symbols: torch.Tensor) -> float:
    """Bits per symbol (Shannon 1948)."""
    counts = torch.unique(symbols, return_counts=True)[1].double()
    share = counts / counts.sum()
    return float(-(share * share.log2()).sum())


def _entropy_of_bytes(numbers: torch.Tensor) -> float:
    """Bits per number when each byte of it is coded on its own; zeros are told apart first."""
    flat = numbers.flatten()
    kept = flat[flat != 0]
    share = len(kept) / len(flat)
    mask = _entropy((flat != 0).to(torch.uint8)) if 0 < share < 1 else 0.0
    if not len(kept):
        return mask
    planes = kept.contiguous().view(torch.uint8).reshape(len(kept), -1)
    return mask + share * sum(_entropy(plane) for plane in planes.T)
