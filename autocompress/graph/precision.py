"""Which activation tensors of a candidate are stored as integers, and of how many bits.

One rule serves simulation, export and pricing, so that what is trained is what is exported and
what is exported is what was priced. Quantisation is a property of a *tensor*: every consumer of a
quantised tensor sees the de-quantised value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from autocompress.graph.ops import FUSED_TAILS, INTEGER_KINDS, PASS_THROUGH, Op


def fused_tails(ops: Sequence[Op]) -> dict[str, str]:
    """For each operation, the name of the operation that ends its fused tail (often itself).

    A directly following, only consumer that is a ReLU-like activation runs inside its producer.
    """
    uses = Counter(name for op in ops for name in op.inputs)
    by_input: dict[str, Op] = {}
    for op in ops:
        for name in op.inputs:
            by_input[name] = op
    tails: dict[str, str] = {}
    for op in ops:
        follower = by_input.get(op.name)
        fusable = op.kind in INTEGER_KINDS or op.kind in {"conv", "linear"}
        tails[op.name] = (
            follower.name
            if fusable
            and follower is not None
            and uses[op.name] == 1
            and follower.kind in FUSED_TAILS
            else op.name
        )
    return tails


def quantized_tensors(ops: Sequence[Op]) -> frozenset[str]:
    """Names of the operations whose output tensor is stored as integers (in the file as uint8).

    The inputs of every integer layer and its output after the fused tail; a pass-through
    operation when its input is; an addition, concatenation or average pool (after its tail) when
    all its inputs are. The graph's final output stays float, unless a convolution gives it: integer
    convolutions write integers (integer linear layers can write floats).
    """
    tails = fused_tails(ops)
    finals = {name for op in ops if op.kind == "output" for name in op.inputs}
    by_name = {op.name: op for op in ops}
    quantized: set[str] = set()

    def mark(name: str) -> None:
        op = by_name[name]
        if op.kind in PASS_THROUGH:
            # same values, same scale: the tensor before it is quantised, and so is its output
            mark(op.inputs[0])
        quantized.add(name)

    for op in ops:
        if op.is_integer_layer:
            mark(op.inputs[0])
            if tails[op.name] not in finals or op.kind == "conv":
                quantized.add(tails[op.name])
    changed = True
    while changed:
        changed = False
        for op in ops:
            if not op.inputs or op.kind == "output":
                continue
            result = tails[op.name]
            if result in quantized or result in finals:
                continue
            whole = all(name in quantized for name in op.inputs)
            if whole and (op.kind in PASS_THROUGH or op.kind in INTEGER_KINDS):
                quantized.add(result)
                changed = True
    return frozenset(quantized)


def scale_roots(ops: Sequence[Op]) -> dict[str, str]:
    """For each quantised tensor, the tensor whose quantiser gives its scale (often itself)."""
    quantized = quantized_tensors(ops)
    by_name = {op.name: op for op in ops}

    def root(name: str) -> str:
        op = by_name[name]
        if op.kind in PASS_THROUGH and op.inputs[0] in quantized:
            return root(op.inputs[0])
        return name

    return {name: root(name) for name in quantized}


def tensor_bits(ops: Sequence[Op]) -> dict[str, int]:
    """Bits of each quantised tensor: 8, 6 or 4.

    The fewest that any integer layer asks for that writes the tensor or reads it (also behind
    operations that only move its values): no layer meets a code that it has no bits for. What none
    of them touches (a sum, a concatenation, a pool) has as many as the widest of its inputs.
    """
    roots, tails = scale_roots(ops), fused_tails(ops)
    bits: dict[str, int] = {}
    for op in ops:
        if op.is_integer_layer:
            for name in (op.inputs[0], tails[op.name]):
                if name in roots:
                    root = roots[name]
                    bits[root] = min(bits.get(root, 8), op.activation_bits)
    for op in ops:
        result = tails[op.name]
        if roots.get(result) == result:
            bits.setdefault(
                result, max((bits[roots[i]] for i in op.inputs if i in roots), default=8)
            )
    return {name: bits[root] for name, root in roots.items()}
