"""Time that zeros save: only where a device's profile says so, and as much as it says.

A profile's ``sparsity_speedup`` names a pattern with its share of zeros, and by what factor a
layer's multiplications are faster with it: "2:4", whose share follows from it, or "block:1x4@0.7".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from autocompress.compression.patterns.n_of_m import NOfM
from autocompress.compression.patterns.registry import make_pattern
from autocompress.core.candidate import UNSTRUCTURED
from autocompress.errors import RequestError
from autocompress.graph.ops import Op
from autocompress.hardware.lowerings.registry import Lowering
from autocompress.measurement.kernels import KernelSignature


def pattern_and_share(name: str) -> tuple[str, float]:
    """The pattern of a key of ``sparsity_speedup``, and the share of zeros that it is about.

    Raises:
        RequestError: it names no pattern, no share where one is needed, or another one.
    """
    text, at, number = name.partition("@")
    pattern = make_pattern(text)
    if isinstance(pattern, NOfM):
        if at:
            raise RequestError(f"the share of {text!r} follows from it; write {text!r} alone")
        return text, pattern.sparsity
    try:
        share = float(number)
    except ValueError:
        share = 0.0
    if not 0.0 < share < 1.0:
        raise RequestError(
            f"{name!r} needs the share of zeros that the factor is for; write such as '{text}@0.7'"
        )
    return text, share


def key_of(op: Op) -> str:
    """The key that an operation's zeros have in ``sparsity_speedup``; "" without zeros."""
    if not op.sparsity:
        return ""
    return f"{op.pattern}@{op.sparsity:g}" if _needs_share(op.pattern) else op.pattern


def _needs_share(pattern: str) -> bool:
    return pattern == UNSTRUCTURED or pattern.startswith("block:")


class SparsityCredit:
    """What a profile credits zeros with.

    Args:
        speedups: factor by key, as a profile has them; empty for none.
    """

    def __init__(self, speedups: Mapping[str, float]) -> None:
        found = {pattern_and_share(name): factor for name, factor in speedups.items()}
        self._factors = {
            f"{pattern}@{share:g}" if _needs_share(pattern) else pattern: factor
            for (pattern, share), factor in found.items()
        }

    def factor(self, op: Op) -> float:
        """How many times faster the operation's multiplications are; 1.0 for no credit."""
        return self._factors.get(key_of(op), 1.0)

    def counted(self, op: Op) -> Op:
        """The operation with those zeros alone that change its price."""
        if self.factor(op) != 1.0:
            return op
        return replace(op, sparsity=0.0, pattern=UNSTRUCTURED) if op.sparsity else op

    def applied(self, lowering: Lowering) -> Lowering:
        """The same rules, with the credit on each kernel that multiplies by a layer's weight."""
        if not self._factors:
            return lowering

        def lower_by_op(
            ops: Sequence[Op], quantized: Collection[str]
        ) -> tuple[tuple[str, KernelSignature], ...]:
            factors = {op.name: self.factor(op) for op in ops}
            return tuple(
                (name, replace(kernel, speedup=factors[name]))
                if factors[name] != 1.0 and kernel.weight is not None
                else (name, kernel)
                for name, kernel in lowering(ops, quantized)
            )

        return lower_by_op
