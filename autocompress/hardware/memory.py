"""Which activations of a candidate occupy memory, from when to when."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
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
#: What a runtime may do without memory of its own: rename memory; write an activation over its
#: input; write a sum over one of its inputs.
VIEW, ACTIVATION, ADD = "view", "activation", "add"
RULES = (VIEW, ACTIVATION, ADD)
USUAL_RULES = (VIEW, ACTIVATION)


@dataclass(frozen=True, slots=True)
class Lifetime:
    """A block of memory.

    Attributes:
        size_bytes: the largest tensor that it holds.
        first: step of the execution order at which it is first written.
        last: step at which it is last read.
    """

    size_bytes: int
    first: int
    last: int


def tensor_bytes(op: Op, quantized: Collection[str]) -> int:
    """Bytes of an operation's output as it is stored: one a value when quantised, else four."""
    return prod(op.shape) * (1 if op.name in quantized else 4)


def peak_memory_bytes(
    ops: Sequence[Op], quantized: Collection[str], rules: Collection[str] = USUAL_RULES
) -> int:
    """Largest sum of live activations over the execution order, input and output included.

    A tensor lives from the operation that makes it to the last one that reads it. Fused tails
    are not counted twice: an activation that runs in place shares its input's memory when it is
    the only reader.
    """
    blocks = lifetimes(ops, quantized, rules).values()
    change = [0] * (len(ops) + 1)
    for block in blocks:
        change[block.first] += block.size_bytes
        change[block.last + 1] -= block.size_bytes
    peak = live = 0
    for step in change:
        live += step
        peak = max(peak, live)
    return peak


def lifetimes(
    ops: Sequence[Op], quantized: Collection[str], rules: Collection[str] = USUAL_RULES
) -> Mapping[str, Lifetime]:
    """The blocks of memory that a candidate's activations need, in the order of their making."""
    owner, tails = owners(ops, rules), fused_tails(ops)
    size: dict[str, int] = {}
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for step, op in enumerate(ops):
        root = owner[op.name]
        first.setdefault(root, step)
        size.setdefault(root, 0)
        if (
            tails[op.name] == op.name and not op.is_folded
        ):  # else its values only exist after the fused activation
            size[root] = max(size[root], tensor_bytes(op, quantized))
        for name in (op.name, *op.inputs):
            last[owner[name]] = step
    return {name: Lifetime(size[name], first[name], last[name]) for name in size}


def owners(ops: Sequence[Op], rules: Collection[str] = USUAL_RULES) -> dict[str, str]:
    """For each operation, the one whose memory its output occupies (often itself).

    Args:
        ops: in execution order.
        rules: what needs no memory of its own, out of :data:`RULES`. The graph's output and
            activations that run inside the operation before them never do.
    """
    uses: dict[str, int] = {}
    for op in ops:
        for name in op.inputs:
            uses[name] = uses.get(name, 0) + 1
    inside = {tail for name, tail in fused_tails(ops).items() if tail != name}
    owner: dict[str, str] = {}
    for op in ops:
        shared = next((n for n in op.inputs if _shares(op, n, uses, inside, rules)), op.name)
        owner[op.name] = owner.get(shared, op.name)
    return owner


def _shares(
    op: Op, name: str, uses: Mapping[str, int], inside: Collection[str], rules: Collection[str]
) -> bool:
    """Whether the output of ``op`` may lie where its input ``name`` lies."""
    if op.kind == "output" or (op.kind in VIEWS and VIEW in rules):
        return name == op.inputs[0]
    if uses[name] != 1:
        return False
    if len(op.inputs) == 1 and op.kind in IN_PLACE:
        return ACTIVATION in rules or op.name in inside
    return op.kind == "add" and ADD in rules
