"""Small networks as operations: what profiles are calibrated and validated with.

Random members of a few families (residual, inverted residual, plain, fully connected) at the
image sizes of the digits (8), of CIFAR (32) and of small photographs (64), in float, in integers
and mixed. Those for photographs are wide, so that their weights leave the nearest caches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np

from autocompress.graph.ops import Op
from autocompress.graph.precision import quantized_tensors
from autocompress.measurement.synthesis import synthesise

PRECISIONS = ("fp32", "int8", "mixed")


@dataclass(frozen=True, slots=True)
class Network:
    """A network that exists as operations only.

    Attributes:
        name: says the family, the size and the precision.
        ops: its operations.
    """

    name: str
    ops: tuple[Op, ...]

    def onnx(self) -> bytes:
        """A serialised model with random weights."""
        return synthesise(self.ops, quantized_tensors(self.ops))


class NetworkBuilder:
    """Appends operations and keeps track of shapes.

    Args:
        shape: of the input, without the batch.
        integer: asked for every layer: whether it computes in integers.
    """

    def __init__(self, shape: tuple[int, ...], integer: Callable[[], bool]) -> None:
        self._integer = integer
        self._ops = [Op("input", "input", (), (1, *shape))]
        self.shapes = {"input": (1, *shape)}

    def _add(self, op: Op) -> str:
        self._ops.append(op)
        self.shapes[op.name] = op.shape
        return op.name

    def op(self, kind: str, *inputs: str, shape: tuple[int, ...] | None = None) -> str:
        """An operation without weights; by default its output has the shape of its input."""
        name = f"{kind}_{len(self._ops)}"
        return self._add(Op(name, kind, inputs, shape or self.shapes[inputs[0]]))

    def conv(
        self, source: str, channels: int, *, kernel: int = 3, stride: int = 1, groups: int = 1
    ) -> str:
        """A convolution that keeps the image size up to its stride."""
        _, before, height, width = self.shapes[source]
        pad = kernel // 2
        size = tuple((n + 2 * pad - kernel) // stride + 1 for n in (height, width))
        attributes: dict[str, int | tuple[int, ...]] = {
            "bias": 1,
            "dilation": (1, 1),
            "groups": groups,
            "kernel": (kernel, kernel),
            "padding": (pad, pad),
            "stride": (stride, stride),
        }
        weight = (channels, before // groups, kernel, kernel)
        return self._layer("conv", source, (1, channels, *size), attributes, weight)

    def linear(self, source: str, features: int) -> str:
        """A fully connected layer."""
        weight = (features, self.shapes[source][-1])
        return self._layer("linear", source, (1, features), {"bias": 1}, weight)

    def _layer(
        self,
        kind: str,
        source: str,
        shape: tuple[int, ...],
        attributes: dict[str, int | tuple[int, ...]],
        weight: tuple[int, ...],
    ) -> str:
        name = f"{kind}_{len(self._ops)}"
        bits = 8 if self._integer() else 32
        return self._add(
            Op(
                name,
                kind,
                (source,),
                shape,
                layer=name,
                attributes=tuple(sorted(attributes.items())),
                weight_shape=weight,
                weight_bits=bits,
                activation_bits=bits,
            )
        )

    def max_pool(self, source: str) -> str:
        """Halves the image."""
        _, channels, height, width = self.shapes[source]
        name = f"max_pool_{len(self._ops)}"
        attributes = (("kernel", (2, 2)), ("padding", (0, 0)), ("stride", (2, 2)))
        shape = (1, channels, height // 2, width // 2)
        return self._add(Op(name, "max_pool", (source,), shape, attributes=attributes))

    def finish(self, source: str) -> tuple[Op, ...]:
        """The operations, with ``source`` as the output."""
        self.op("output", source)
        return tuple(self._ops)


def _classify(net: NetworkBuilder, source: str, *, hidden: int = 0) -> tuple[Op, ...]:
    pooled = net.op("global_avg_pool", source, shape=(1, net.shapes[source][1]))
    if hidden:
        pooled = net.op("relu", net.linear(pooled, hidden))
    return net.finish(net.linear(pooled, 10))


def _is_photo(net: NetworkBuilder) -> bool:
    return net.shapes["input"][-1] >= 64


def residual(net: NetworkBuilder, rng: np.random.Generator) -> tuple[Op, ...]:
    """Basic residual blocks in three stages (He et al. 2016, arXiv:1512.03385)."""
    photo = _is_photo(net)
    offered = [64, 128, 192, 256] if photo else [16, 32, 48, 64]
    widths = sorted(int(w) for w in rng.choice(offered, 3))
    x = net.op("relu", net.conv("input", widths[0], stride=2 if photo else 1))
    x = net.max_pool(x) if photo else x
    for stage, width in enumerate(widths):
        for block in range(int(rng.integers(1, 4))):
            stride = 2 if stage and not block else 1
            inner = int(rng.choice(offered))
            y = net.conv(net.op("relu", net.conv(x, inner, stride=stride)), width)
            same = stride == 1 and net.shapes[x][1] == width
            skip = x if same else net.conv(x, width, kernel=1, stride=stride)
            x = net.op("relu", net.op("add", y, skip))
    return _classify(net, x)


def inverted(net: NetworkBuilder, rng: np.random.Generator) -> tuple[Op, ...]:
    """Inverted residual blocks (Sandler et al. 2018, arXiv:1801.04381)."""
    photo = _is_photo(net)
    activation = str(rng.choice(["relu6", "relu"]))
    width, widest = int(rng.choice([16, 32])), 256 if photo else 64
    x = net.op(activation, net.conv("input", width, stride=2 if photo else 1))
    for block in range(int(rng.integers(*((6, 13) if photo else (2, 6))))):
        stride = 2 if block % 2 else 1
        if net.shapes[x][2] < 8 and photo:
            stride = 1
        before = net.shapes[x][1]
        grows = block % 2 if photo else stride == 2
        width = before * 2 if grows and before < widest else before
        inner = before * int(rng.choice([3, 6] if photo else [2, 4]))
        y = net.op(activation, net.conv(x, inner, kernel=1))
        kernel = int(rng.choice([3, 5]))
        y = net.op(activation, net.conv(y, inner, kernel=kernel, stride=stride, groups=inner))
        y = net.conv(y, width, kernel=1)
        x = net.op("add", x, y) if stride == 1 and width == before else y
    return _classify(net, net.op(activation, net.conv(x, 2 * width, kernel=1)))


def plain(net: NetworkBuilder, rng: np.random.Generator) -> tuple[Op, ...]:
    """Convolutions with max pools and two linear layers."""
    x = "input"
    offered = [32, 64, 96, 128] if _is_photo(net) else [8, 16, 24, 32, 64]
    for _ in range(int(rng.integers(2, 4))):
        for _ in range(int(rng.integers(1, 3))):
            width, kernel = int(rng.choice(offered)), int(rng.choice([3, 5]))
            x = net.op("relu", net.conv(x, width, kernel=kernel))
        x = net.max_pool(x) if net.shapes[x][2] >= 4 else x
    flat = net.op("flatten", x, shape=(1, prod(net.shapes[x][1:])))
    hidden = net.op("relu", net.linear(flat, int(rng.choice([32, 64, 128]))))
    return net.finish(net.linear(hidden, 10))


def connected(net: NetworkBuilder, rng: np.random.Generator) -> tuple[Op, ...]:
    """Fully connected layers on the flattened image."""
    x = net.op("flatten", "input", shape=(1, prod(net.shapes["input"][1:])))
    for _ in range(int(rng.integers(1, 4))):
        x = net.op("relu", net.linear(x, int(rng.choice([64, 128, 256, 512]))))
    return net.finish(net.linear(x, 10))


_FAMILIES = {
    "residual": residual,
    "inverted": inverted,
    "plain": plain,
    "connected": connected,
}
_INPUTS = {"cifar": (3, 32, 32), "digits": (1, 8, 8), "photo": (3, 64, 64)}
#: How often each family is drawn.
_SHARES = {"residual": 4, "inverted": 4, "plain": 2, "connected": 1}


def reference_networks(count: int, *, seed: int) -> list[Network]:
    """``count`` different networks; precisions, image sizes and families take turns."""
    rng = np.random.default_rng(seed)
    families = [name for name, share in _SHARES.items() for _ in range(share)]
    found: dict[tuple[Op, ...], Network] = {}
    number = 0
    while len(found) < count:
        family = families[int(rng.integers(len(families)))]
        size = list(_INPUTS)[number % len(_INPUTS)]
        precision = PRECISIONS[number // len(_INPUTS) % len(PRECISIONS)]
        number += 1

        def integer(precision: str = precision) -> bool:
            return precision == "int8" or (precision == "mixed" and bool(rng.random() < 0.5))

        ops = _FAMILIES[family](NetworkBuilder(_INPUTS[size], integer), rng)
        found.setdefault(ops, Network(f"{family}-{size}-{precision}-{seed}.{number}", ops))
    return list(found.values())
