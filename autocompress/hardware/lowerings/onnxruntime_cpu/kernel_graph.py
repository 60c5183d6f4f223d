"""A small graph of kernels, while it is being turned into what the runtime executes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from autocompress.measurement.kernels import KernelSignature, TensorType
from autocompress.runtimes.base import AttributeValue

#: An operand: the name of an activation, a constant, or nothing.
Operand: TypeAlias = str | TensorType | None
Permutation: TypeAlias = tuple[int, ...]

TO_LAST: Permutation = (0, 2, 3, 1)
TO_FIRST: Permutation = (0, 3, 1, 2)

SCALE = TensorType("float32", (), constant=True)
ZERO_U8 = TensorType("uint8", (), constant=True)


def permuted(shape: tuple[int, ...], perm: Permutation) -> tuple[int, ...]:
    """``shape`` after a transpose by ``perm``."""
    return tuple(shape[p] for p in perm)


def inverse(perm: Permutation) -> Permutation:
    """The permutation that undoes ``perm``."""
    return tuple(perm.index(i) for i in range(len(perm)))


@dataclass(eq=False, slots=True)
class Node:
    """A kernel in the making.

    Attributes:
        op: operator with its domain, as in a signature.
        inputs: operands in order.
        output: name of its result.
        owner: name of the operation that it belongs to.
        attributes: name to value.
    """

    op: str
    inputs: list[Operand]
    output: str
    owner: str
    attributes: dict[str, AttributeValue] = field(default_factory=dict)


class Graph:
    """Kernels in execution order, with the type of every activation."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.types: dict[str, TensorType] = {}
        self.outputs: set[str] = set()
        self.users: dict[str, list[Node]] = {}
        self.maker: dict[str, Node] = {}
        self._fresh = 0

    def name(self, base: str) -> str:
        """A name that nothing has yet."""
        self._fresh += 1
        return f"{base}#{self._fresh}"

    def add(
        self,
        op: str,
        inputs: Iterable[Operand],
        output: str,
        kind: TensorType,
        owner: str,
        **attributes: AttributeValue,
    ) -> Node:
        """Append a node whose result is of type ``kind``."""
        node = Node(op, [], output, owner, dict(attributes))
        self.nodes.append(node)
        self.types[output] = kind
        self.maker[output] = node
        for operand in inputs:
            node.inputs.append(None)
            self.connect(node, len(node.inputs) - 1, operand)
        return node

    def connect(self, node: Node, index: int, operand: Operand) -> None:
        """Make ``operand`` the input ``index`` of ``node``."""
        old = node.inputs[index]
        node.inputs[index] = operand
        if isinstance(old, str) and old not in node.inputs:
            self.users[old].remove(node)
        if isinstance(operand, str):
            users = self.users.setdefault(operand, [])
            if node not in users:
                users.append(node)

    def using(self, value: str) -> list[Node]:
        """The nodes that read ``value``."""
        return self.users.get(value, [])

    def uses(self, value: str) -> int:
        """How often ``value`` is read, being the graph's output included."""
        reads = sum(node.inputs.count(value) for node in self.using(value))
        return reads + (value in self.outputs)

    def rename_output(self, node: Node, output: str) -> None:
        """Let ``node`` make ``output`` instead of what it made."""
        if self.maker.get(node.output) is node:
            del self.maker[node.output]
        node.output = output
        self.maker[output] = node

    def remove(self, node: Node) -> None:
        """Take ``node`` out."""
        for index in range(len(node.inputs)):
            self.connect(node, index, None)
        self.nodes.remove(node)
        if self.maker.get(node.output) is node:
            del self.maker[node.output]

    def signature(self, node: Node) -> KernelSignature:
        """The signature of ``node`` as it is now."""
        inputs = [self.types[i] if isinstance(i, str) else i for i in node.inputs]
        while inputs and inputs[-1] is None:
            inputs.pop()
        attributes = tuple(sorted(node.attributes.items()))
        return KernelSignature(node.op, tuple(inputs), (self.types[node.output],), attributes)
