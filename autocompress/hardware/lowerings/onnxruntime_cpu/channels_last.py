"""Integer convolutions with channels last, and where the transposes at the borders end up.

After ``nhwc_transformer.cc`` and ``onnx_transpose_optimization.cc`` of ONNX Runtime: every integer
convolution is wrapped in transposes, which are then pushed through other kernels as long as that
lowers the number of transposed dimensions.
"""

from __future__ import annotations

from dataclasses import replace

from autocompress.hardware.lowerings.onnxruntime_cpu.kernel_graph import (
    SCALE,
    TO_FIRST,
    TO_LAST,
    ZERO_U8,
    Graph,
    Node,
    Permutation,
    inverse,
    permuted,
)

_FIRST_ONLY = frozenset(
    {
        "QuantizeLinear",
        "DequantizeLinear",
        "Relu",
        "Sigmoid",
        "Tanh",
        "HardSigmoid",
        "LeakyRelu",
        "Elu",
        "Clip",
        "Gelu",
        "ms:QuickGelu",
        "MaxPool",
        "ms:QLinearAveragePool",
        "ms:QLinearGlobalAveragePool",
        "ms:QLinearLeakyRelu",
        "ms:QLinearSigmoid",
        "Transpose",
        "Reshape",
        "ReduceMean",
    }
)
_INTEGER_POOLS = frozenset({"ms:QLinearAveragePool", "ms:QLinearGlobalAveragePool"})
_BROADCAST = frozenset({"Add", "Mul", "Sub", "Div"})
_INTEGER_BINARY = frozenset({"ms:QLinearAdd", "ms:QLinearMul"})
_NO_OUTPUT = frozenset({"Reshape", "Flatten"})


def _transposable(node: Node) -> list[int] | None:
    """Indices of the inputs that may be transposed; None where nothing may be pushed through."""
    if node.op in _FIRST_ONLY:
        return [0]
    if node.op in _BROADCAST or node.op == "Concat":
        return [i for i, operand in enumerate(node.inputs) if isinstance(operand, str)]
    if node.op in _INTEGER_BINARY:
        return [0, 3]
    if node.op == "ms:QLinearConcat":
        return list(range(2, len(node.inputs), 3))
    return None


class _Pass:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def run(self) -> None:
        wrapped = [node for node in self.graph.nodes if node.op == "ms:QLinearConv"]
        if not wrapped:
            return
        for node in wrapped:
            node.attributes["channels_last"] = 1
            self._transpose_input(node, 0, TO_LAST)
            self._transpose_output(node, TO_FIRST)
        leading = self._leading_to_transpose()
        for node in list(self.graph.nodes):
            self._process(node, leading)
        self._repair_pairs()
        self._drop_unused()

    def _repair_pairs(self) -> None:
        """A transpose between a DQ and a float kernel gets a Q and a DQ of its own behind it."""
        graph = self.graph
        for node in list(graph.nodes):
            if node.op != "Transpose":
                continue
            above = graph.maker.get(str(node.inputs[0]))
            users = graph.using(node.output)
            if above is None or above.op != "DequantizeLinear" or len(users) > 1:
                continue
            if users and users[0].op == "QuantizeLinear":
                continue
            old, kind = node.output, graph.types[node.output]
            moved, stored = graph.name(f"{old}.t"), graph.name(f"{old}.q")
            graph.types[moved] = kind
            graph.rename_output(node, moved)
            integer = replace(kind, dtype="uint8")
            graph.add("QuantizeLinear", [moved, SCALE, ZERO_U8], stored, integer, node.owner)
            graph.add("DequantizeLinear", [stored, SCALE, ZERO_U8], old, kind, node.owner)
            pair = [graph.nodes.pop(), graph.nodes.pop()]
            place = graph.nodes.index(node) + 1
            graph.nodes[place:place] = pair[::-1]

    def _drop_unused(self) -> None:
        for node in list(self.graph.nodes):
            if node.op == "Transpose" and not self.graph.uses(node.output):
                self.graph.remove(node)

    # -- what to push -----------------------------------------------------------------------------

    def _leading_to_transpose(self) -> set[str]:
        """Values from which a way through pushable kernels leads to a transpose."""
        leading: set[str] = set()
        for node in reversed(self.graph.nodes):
            if node.op == "Transpose":
                leading.add(str(node.inputs[0]))
                continue
            indices = _transposable(node)
            if node.output in leading and indices is not None and node.op not in _NO_OUTPUT:
                leading.update(str(node.inputs[i]) for i in indices)
        return leading

    def _process(self, node: Node, leading: set[str]) -> None:
        indices = _transposable(node)
        if indices is None or node not in self.graph.nodes:
            return
        for index, operand in enumerate(list(node.inputs)):
            if not isinstance(operand, str) or index not in indices:
                continue
            above = self.graph.maker.get(operand)
            if above is None or above.op != "Transpose":
                continue
            if self._worth_it(node, _perm(above), indices, leading) and self._push(
                node, _perm(above), indices
            ):
                return

    def _worth_it(
        self, node: Node, perm: Permutation, indices: list[int], leading: set[str]
    ) -> bool:
        if node.op in {"Transpose", "MaxPool"}:
            return True
        cost = sum(self._cost(str(node.inputs[i]), perm) for i in indices)
        if cost < 0 and node.op not in _NO_OUTPUT and node.output not in leading:
            cost += self._rank(node.output)
        return cost < 0

    def _rank(self, value: str) -> int:
        # the batch dimension stays open in the file, so it always counts
        return 1 + sum(d != 1 for d in self.graph.types[value].shape[1:])

    def _cost(self, value: str, perm: Permutation) -> int:
        above = self.graph.maker.get(value)
        if above is not None and above.op == "DequantizeLinear":
            deeper = self.graph.maker.get(str(above.inputs[0]))
            above = deeper if deeper is not None else above
        if above is not None and above.op == "Transpose":
            if _perm(above) == perm and self._removable(above):
                return -self._rank(value)
            return 0
        return self._rank(value)

    def _removable(self, transpose: Node) -> bool:
        if transpose.output in self.graph.outputs:
            return False
        return all(_transposable(n) is not None for n in self.graph.using(transpose.output))

    # -- pushing ----------------------------------------------------------------------------------

    def _push(self, node: Node, perm: Permutation, indices: list[int]) -> bool:
        """Move transposes by ``perm`` from the inputs of ``node`` to its output."""
        kind = self.graph.types[node.output]
        undo = inverse(perm)
        if node.op == "Transpose":
            return self._cancel(node, perm)
        if node.op in {"Reshape", "ReduceMean"}:
            return False
        if node.op == "MaxPool":
            if kind.dtype != "uint8" or perm != TO_FIRST:
                return False
            node.op = "ms:NhwcMaxPool"
        if node.op in _INTEGER_POOLS:
            last = node.attributes.get("channels_last", 0)
            if (perm if not last else undo) != TO_FIRST:
                return False
            node.attributes["channels_last"] = 1 - int(bool(last))
            if last:
                del node.attributes["channels_last"]
        if node.op in {"Concat", "ms:QLinearConcat"}:
            axis = node.attributes.get("axis", 1)
            node.attributes["axis"] = perm[int(axis) % len(perm)]  # type: ignore[arg-type]
        for index in indices:
            self._transpose_input(node, index, undo)
        self._transpose_output(node, perm)
        return True

    def _cancel(self, node: Node, perm: Permutation) -> bool:
        above = self.graph.maker[str(node.inputs[0])]
        combined = tuple(perm[p] for p in _perm(node))
        source = str(above.inputs[0])
        if combined != tuple(range(len(combined))):
            node.attributes["perm"] = combined
            self.graph.connect(node, 0, source)
        elif node.output in self.graph.outputs:
            return False
        else:
            for user in list(self.graph.using(node.output)):
                for index, operand in enumerate(user.inputs):
                    if operand == node.output:
                        self.graph.connect(user, index, source)
            self.graph.remove(node)
        if not self.graph.uses(above.output):
            self.graph.remove(above)
        return True

    def _transpose_input(self, node: Node, index: int, perm: Permutation) -> None:
        value = str(node.inputs[index])
        above = self.graph.maker.get(value)
        through = None
        if above is not None and above.op == "DequantizeLinear":
            deeper = self.graph.maker.get(str(above.inputs[0]))
            if deeper is not None and deeper.op == "Transpose" and _perm(deeper) == inverse(perm):
                through, above = above, deeper
        if above is not None and above.op == "Transpose":
            before = str(above.inputs[0])
            if _perm(above) == inverse(perm):
                if through is not None:
                    self.graph.connect(through, 0, before)
                    kind = self.graph.types[through.output]
                    self.graph.types[through.output] = replace(
                        kind, shape=permuted(kind.shape, perm)
                    )
                else:
                    self.graph.connect(node, index, before)
                if not self.graph.uses(above.output):
                    self.graph.remove(above)
                return
            if through is None:
                combined = tuple(_perm(above)[p] for p in perm)
                self.graph.connect(node, index, self._transposed(before, combined, node))
                if not self.graph.uses(above.output):
                    self.graph.remove(above)
                return
        for user in self.graph.using(value):
            if user.op == "Transpose" and _perm(user) == perm:
                self.graph.connect(node, index, user.output)
                return
        self.graph.connect(node, index, self._transposed(value, perm, node))

    def _transposed(self, value: str, perm: Permutation, before: Node) -> str:
        graph = self.graph
        kind = graph.types[value]
        output = graph.name(f"{value}.t")
        shape = permuted(kind.shape, perm)
        graph.add("Transpose", [value], output, replace(kind, shape=shape), before.owner, perm=perm)
        moved = graph.nodes.pop()
        graph.nodes.insert(graph.nodes.index(before), moved)
        return output

    def _transpose_output(self, node: Node, perm: Permutation) -> None:
        graph = self.graph
        old = node.output
        kind = graph.types[old]
        new = graph.name(f"{old}.t")
        graph.types[new] = replace(kind, shape=permuted(kind.shape, inverse(perm)))
        graph.rename_output(node, new)
        graph.add("Transpose", [new], old, kind, node.owner, perm=perm)
        moved = graph.nodes.pop()
        graph.nodes.insert(graph.nodes.index(node) + 1, moved)


def _perm(node: Node) -> Permutation:
    perm = node.attributes["perm"]
    if not isinstance(perm, tuple):
        raise TypeError(f"transpose with permutation {perm!r}")
    return tuple(int(p) for p in perm)


def use_channels_last(graph: Graph) -> None:
    """Change ``graph`` in place."""
    _Pass(graph).run()
