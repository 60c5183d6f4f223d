"""The light description of one concrete candidate: what is computed, in which shapes and bits.

An :class:`Op` holds no tensors, so a candidate can be priced without building it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from autocompress.core.candidate import UNSTRUCTURED

Attribute: TypeAlias = int | float | str | tuple[int, ...]

#: Kinds that multiply by weights.
LAYER_KINDS = frozenset({"conv", "linear"})
#: Activations that runtimes fold into the operator before them.
FUSED_TAILS = frozenset({"relu", "relu6", "hardtanh"})
#: Kinds whose output holds the same values as their input, in the same scale.
PASS_THROUGH = frozenset({"max_pool", "flatten", "reshape", "transpose"})
#: Kinds with an integer form of their own when all their inputs are integers.
INTEGER_KINDS = frozenset({"add", "concat", "avg_pool", "global_avg_pool"})


@dataclass(frozen=True, slots=True)
class Op:
    """One operation of a concrete candidate, batch norm already folded away.

    Attributes:
        name: unique; stable across the candidates of one graph.
        kind: "conv", "linear", "embedding", "relu", "add", … or "aten.<op>" for what has no name
            here.
        inputs: names of the operations that produce its activations.
        shape: output shape with batch 1, such as ``(1, 64, 8, 8)``.
        layer: the user's layer name for conv, linear and embedding ("<layer>.0", "<layer>.1" and so
            on for the parts of a low-rank layer).
        attributes: sorted pairs: kernel, stride, padding, dilation, groups, bias, axis …; "dtype"
            where its output is no float32; "folded" where it reads constants alone, so that only
            its weights remain when a model is loaded.
        weight_shape: shape of the weight, or empty.
        weight_bits: bits per stored weight.
        activation_bits: bits of input and output activations that the layer's policy asks for; 32
            for an embedding, which computes nothing.
        sparsity: share of zero weights.
        codebook: values that the weights share; 0 when they share none. ``weight_bits`` then only
            says whether the layer computes in integers.
        pattern: how its zeros lie; "unstructured" where it has none.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    layer: str | None = None
    attributes: tuple[tuple[str, Attribute], ...] = ()
    weight_shape: tuple[int, ...] = ()
    weight_bits: int = 32
    activation_bits: int = 32
    sparsity: float = 0.0
    codebook: int = 0
    pattern: str = UNSTRUCTURED

    def attribute(self, name: str, default: Attribute = 0) -> Attribute:
        """The attribute ``name``, or ``default``."""
        return dict(self.attributes).get(name, default)

    @property
    def is_integer_layer(self) -> bool:
        """Whether it is a layer that computes in integers."""
        return self.kind in LAYER_KINDS and self.weight_bits <= 8 and self.activation_bits <= 8

    @property
    def is_folded(self) -> bool:
        """Whether runtimes compute it when they load a model, not when they run it."""
        return bool(self.attribute("folded"))

    @property
    def stores_rounded(self) -> bool:
        """Whether its weights are stored as anything but 32-bit floats."""
        return self.weight_bits < 32 or self.codebook > 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one sample; 0 for operations without weights."""
        if self.kind not in LAYER_KINDS or self.is_folded:
            return 0
        if self.kind == "linear":
            return prod(self.shape[1:]) * self.weight_shape[1]
        return prod(self.shape[1:]) * prod(self.weight_shape[1:])

    @property
    def parameters(self) -> int:
        """Stored weights and biases; a layer's second call ("again") stores none."""
        if not self.weight_shape or self.attribute("again"):
            return 0
        bias = self.weight_shape[0] if self.attribute("bias") else 0
        return prod(self.weight_shape) + bias


def reduced_axes(op: Op, rank: int) -> tuple[int, ...]:
    """Dimensions that a sum or mean does away with, of an input with ``rank`` dimensions.

    Where the operation does not say (one that was read from a file), all between the batch and the
    features.
    """
    axes = op.attribute("axes", ())
    return axes if isinstance(axes, tuple) and axes else tuple(range(1, max(2, rank - 1)))
