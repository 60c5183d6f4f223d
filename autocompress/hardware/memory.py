"""Peak activation memory of a candidate."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import prod

from autocompress.graph.ops import PASS_THROUGH, Op
from autocompress.graph.precision import fused_tails

#: Kinds that share the memory of their input.
VIEWS = PASS_THROUGH - {"max_pool", "transpose"}
#: Kinds that may overwrite their input.
IN_PLACE = frozenset(
    {"relu", "relu6", "hardtanh", "hardswish", "hardsigmoid", "sigmoid", "silu", "gelu", "tanh",
     "leaky_relu", "elu"}
)  # fmt: skip


def tensor_bytes(op: Op, quantized: Collection[str]) -> int:
    """Bytes of an operation's output as it is stored: one a value when quantised, else four."""
    return prod(op.shape) * (1 if op.name in quantized else 4)


def peak_memory_bytes(ops: Sequence[Op], quantized: Collection[str]) -> int:
    """Largest sum of live activations over the execution order, input and output included.

    A tensor lives from the operation that makes it to the last one that reads it. Fused tails
    are not counted twice: an activation that runs in place shares its input's memory when it is
    the only reader.
    """
    size = owned_bytes(ops, quantized)
    return max((sum(size[name] for name in live) for live in live_sets(ops)), default=0)


def owned_bytes(ops: Sequence[Op], quantized: Collection[str]) -> dict[str, int]:
    """Bytes of the memory that each owner holds (see :func:`owners`)."""
    owner, tails = owners(ops), fused_tails(ops)
    size: dict[str, int] = {}
    for op in ops:
        if tails[op.name] != op.name:
            continue  # its values only ever exist after the fused activation
        root = owner[op.name]
        size[root] = max(size.get(root, 0), tensor_bytes(op, quantized))
    return size


def owners(ops: Sequence[Op]) -> dict[str, str]:
    """For each operation, the one whose memory its output occupies (often itself)."""
    uses: dict[str, int] = {}
    for op in ops:
        for name in op.inputs:
            uses[name] = uses.get(name, 0) + 1
    owner: dict[str, str] = {}
    for op in ops:
        alone = len(op.inputs) == 1 and uses[op.inputs[0]] == 1
        in_place = op.kind in VIEWS or op.kind == "output" or (alone and op.kind in IN_PLACE)
        owner[op.name] = owner[op.inputs[0]] if in_place and op.inputs else op.name
    return owner


def live_sets(ops: Sequence[Op]) -> list[frozenset[str]]:
    """For each step of the execution order, the owners of memory that is live then."""
    owner = owners(ops)
    last: dict[str, int] = {}
    for step, op in enumerate(ops):
        for name in (op.name, *op.inputs):
            last[owner[name]] = step
    live: set[str] = set()
    steps = []
    for step, op in enumerate(ops):
        live.add(owner[op.name])
        steps.append(frozenset(live))
        live = {name for name in live if last[name] > step}
    return steps
