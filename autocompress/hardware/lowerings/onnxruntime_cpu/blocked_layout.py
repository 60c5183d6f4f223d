"""Float convolutions and pools on blocks of 16 channels (NCHWc), with reorders at the borders.

After ``nchwc_transformer.cc`` of ONNX Runtime; the block is 16 floats where AVX-512 exists.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from autocompress.hardware.lowerings.onnxruntime_cpu.kernel_graph import Graph, Node
from autocompress.measurement.kernels import TensorType

BLOCK = 16
#: Input channels from a block on must be a multiple of this.
ALIGNMENT = 4
_CONV = frozenset({"Conv", "ms:FusedConv"})
_POOLS = frozenset({"MaxPool", "AveragePool"})
_GLOBAL = "GlobalAveragePool"
_BINARY = frozenset({"Add", "Mul"})
_PLAIN = frozenset(
    {"Relu", "Sigmoid", "Tanh", "Gelu", "ms:QuickGelu", "HardSigmoid", "LeakyRelu", "HardSwish"}
)
_FUSABLE = frozenset({"Relu", "Sigmoid", "Tanh", "HardSwish"})


def padded(channels: int) -> int:
    """``channels`` up to the next whole block."""
    return -(-channels // BLOCK) * BLOCK


@dataclass(slots=True)
class _Blocked:
    """A value that exists in blocked form."""

    value: str
    node: Node
    channels: int
    uses: int
    left: int


class _Pass:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.blocked: dict[str, _Blocked] = {}
        self.reordered: dict[str, str] = {}

    def run(self) -> None:
        for node in list(self.graph.nodes):
            self._visit(node)
        for name, entry in self.blocked.items():
            if entry.left > 0:
                self._reorder_output(name, entry)
        for node in list(self.graph.nodes):
            if node.op == "Conv":
                self._fuse_residual(node)

    def _visit(self, node: Node) -> None:
        if node.op in _CONV:
            self._conv(node)
        elif node.op in _POOLS or (node.op == _GLOBAL and node.inputs[0] in self.blocked):
            self._pool(node)
        elif node.op == "BatchNormalization" and node.inputs[0] in self.blocked:
            self._batch_norm(node)
        elif node.op in _BINARY | {"Concat"} | _PLAIN:
            names = [i for i in node.inputs if isinstance(i, str)]
            constants = node.op in _BINARY and len(names) != len(node.inputs)
            if names and not constants and all(name in self.blocked for name in names):
                if node.op in _BINARY:
                    self._binary(node, names)
                elif node.op == "Concat":
                    self._concat(node, names)
                else:
                    self._plain(node, names[0])

    def _conv(self, node: Node) -> None:
        weight = node.inputs[1]
        if not isinstance(weight, TensorType) or len(weight.shape) != 4:
            return
        out_channels, in_channels = weight.shape[:2]
        group = node.attributes.get("group", 1)
        reorder, filter_in = True, in_channels
        blocks = padded(out_channels)
        if isinstance(group, int) and group > 1:
            if in_channels == 1 and out_channels == group:
                if out_channels % ALIGNMENT:
                    return
                node.attributes["group"] = blocks
            elif out_channels % BLOCK or in_channels % BLOCK or (out_channels // group) % BLOCK:
                return
        elif in_channels < BLOCK:
            reorder = False
        elif in_channels % ALIGNMENT:
            return
        else:
            filter_in = padded(in_channels)
        node.op = "nchwc:Conv"
        node.inputs[1] = replace(weight, shape=(blocks, filter_in, *weight.shape[2:]))
        if len(node.inputs) > 2 and isinstance(node.inputs[2], TensorType):
            node.inputs[2] = TensorType("float32", (blocks,), constant=True)
        if reorder:
            self._use(node, 0)
        self._becomes(node, out_channels)

    def _batch_norm(self, node: Node) -> None:
        """Becomes a convolution of each channel by itself, one pixel wide."""
        channels = self.graph.types[str(node.inputs[0])].shape[1]
        blocks = padded(channels)
        node.op = "nchwc:Conv"
        node.attributes = {"group": blocks}
        node.inputs[1:] = [
            TensorType("float32", (blocks, 1, 1, 1), constant=True),
            TensorType("float32", (blocks,), constant=True),
        ]
        self._use(node, 0)
        self._becomes(node, channels)

    def _fuse_residual(self, conv: Node) -> None:
        """A convolution that stayed plain takes the addition and ReLU behind it."""
        graph = self.graph
        if conv not in graph.nodes or graph.uses(conv.output) != 1:
            return
        add = next(iter(graph.using(conv.output)), None)
        if add is None or add.op != "Add" or graph.uses(add.output) != 1:
            return
        relu = next(iter(graph.using(add.output)), None)
        others = [i for i in add.inputs if i != conv.output]
        if relu is None or relu.op != "Relu" or len(others) != 1 or not isinstance(others[0], str):
            return
        if graph.types[others[0]].shape != graph.types[conv.output].shape:
            return
        conv.op = "ms:FusedConv"
        conv.attributes["activation"] = "Relu"
        while len(conv.inputs) < 4:
            conv.inputs.append(None)
        place = graph.nodes.index(relu)
        graph.connect(conv, 3, others[0])
        output = relu.output
        graph.nodes.remove(conv)
        graph.nodes.insert(place, conv)
        graph.remove(add)
        graph.remove(relu)
        graph.rename_output(conv, output)

    def _pool(self, node: Node) -> None:
        source = node.inputs[0]
        kind = self.graph.types[str(source)]
        if kind.dtype != "float32" or len(kind.shape) != 4 or kind.shape[1] % BLOCK:
            return
        node.op = f"nchwc:{node.op}"
        self._use(node, 0)
        self._becomes(node, kind.shape[1])

    def _binary(self, node: Node, names: list[str]) -> None:
        entries = [self.blocked[name] for name in names]
        shapes = {self.graph.types[entry.value].shape for entry in entries}
        if len({entry.channels for entry in entries}) != 1 or len(shapes) != 1:
            return
        for index, entry in enumerate(entries):
            self.graph.connect(node, index, entry.value)
            entry.left -= 1
        if node.op == "Add":
            for index, entry in enumerate(entries):
                conv = entry.node
                free = conv.op == "nchwc:Conv" and len(conv.inputs) < 4
                if free and entry.uses == 1 and "activation" not in conv.attributes:
                    while len(conv.inputs) < 4:
                        conv.inputs.append(None)
                    self.graph.connect(conv, 3, entries[1 - index].value)
                    self._absorb(node, entry)
                    # the convolution now runs once both of its inputs are there
                    self.graph.nodes.remove(conv)
                    self.graph.nodes.insert(self.graph.nodes.index(node), conv)
                    self.graph.remove(node)
                    return
        self._becomes(node, entries[0].channels)

    def _concat(self, node: Node, names: list[str]) -> None:
        entries = [self.blocked[name] for name in names]
        if node.attributes.get("axis") != 1 or any(e.channels % BLOCK for e in entries):
            return
        for index, entry in enumerate(entries):
            self.graph.connect(node, index, entry.value)
            entry.left -= 1
        self._becomes(node, sum(entry.channels for entry in entries))

    def _plain(self, node: Node, name: str) -> None:
        entry = self.blocked[name]
        for index, operand in enumerate(node.inputs):
            if operand == name:
                self.graph.connect(node, index, entry.value)
                entry.left -= 1
        conv = entry.node
        alone = entry.uses == 1 and conv.op == "nchwc:Conv" and "activation" not in conv.attributes
        if alone and node.op in _FUSABLE:
            conv.attributes["activation"] = node.op
            self._absorb(node, entry)
            self.graph.remove(node)
        else:
            self._becomes(node, entry.channels)

    def _use(self, node: Node, index: int) -> None:
        """Let ``node`` read the blocked form of its input."""
        name = str(node.inputs[index])
        entry = self.blocked.get(name)
        if entry is not None:
            entry.left -= 1
            self.graph.connect(node, index, entry.value)
            return
        if name not in self.reordered:
            value = self.graph.name(f"{name}.in")
            kind = self.graph.types[name]
            self.graph.add("nchwc:ReorderInput", [name], value, self._blocks(kind), node.owner)
            moved = self.graph.nodes.pop()
            self.graph.nodes.insert(self.graph.nodes.index(node), moved)
            self.reordered[name] = value
        self.graph.connect(node, index, self.reordered[name])

    def _blocks(self, kind: TensorType) -> TensorType:
        return replace(kind, shape=(kind.shape[0], padded(kind.shape[1]), *kind.shape[2:]))

    def _becomes(self, node: Node, channels: int) -> None:
        """The result of ``node`` is blocked; who reads it in the old form is settled at the end."""
        name = node.output
        value = self.graph.name(f"{name}.blocked")
        self.graph.types[value] = self._blocks(self.graph.types[name])
        self.graph.rename_output(node, value)
        uses = self.graph.uses(name)
        self.blocked[name] = _Blocked(value, node, channels, uses, uses)

    def _absorb(self, node: Node, entry: _Blocked) -> None:
        """The convolution behind ``entry`` also does the work of ``node``."""
        uses = self.graph.uses(node.output)
        self.blocked[node.output] = _Blocked(entry.value, entry.node, entry.channels, uses, uses)

    def _reorder_output(self, name: str, entry: _Blocked) -> None:
        graph = self.graph
        kind = graph.types[name]
        owner = entry.node.owner
        graph.add("nchwc:ReorderOutput", [entry.value], name, kind, owner, channels=entry.channels)
        moved = graph.nodes.pop()
        graph.nodes.insert(graph.nodes.index(entry.node) + 1, moved)


def use_blocked_channels(graph: Graph) -> None:
    """Change ``graph`` in place."""
    _Pass(graph).run()
