"""The kernels derived for OpenVINO are those of its executed graph."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec

import pytest

from autocompress.graph.ops import Op
from autocompress.graph.precision import quantized_tensors
from autocompress.hardware.lowerings.registry import load_lowering
from autocompress.measurement.kernels import KernelSignature
from autocompress.measurement.networks import Network, NetworkBuilder, reference_networks
from autocompress.runtimes.registry import load_runtime

lower = load_lowering("openvino-cpu")


def keys(ops: tuple[Op, ...]) -> list[str]:
    return [kernel.key for _, kernel in lower(ops, quantized_tensors(ops))]


def test_images_lie_with_their_channels_last_up_to_where_they_are_flattened() -> None:
    net = NetworkBuilder((3, 8, 8), lambda: False)
    x = net.max_pool(net.op("relu", net.conv("input", 16)))
    ops = net.finish(net.linear(net.op("flatten", x, shape=(1, 256)), 10))
    assert keys(ops) == [
        "plain:Transpose|f32[1,3,8,8]|f32[1,8,8,3]|perm=[0,2,3,1]",
        "plain:Conv|f32[1,8,8,3];c:f32[16,3,3,3];c:f32[16]|f32[1,8,8,16]|"
        'activation="relu";channels_last=1;pads=[1,1,1,1]',
        "plain:MaxPool|f32[1,8,8,16]|f32[1,4,4,16]|"
        "channels_last=1;kernel_shape=[2,2];strides=[2,2]",
        "plain:Transpose|f32[1,4,4,16]|f32[1,16,4,4]|perm=[0,3,1,2]",
        "plain:Gemm|f32[1,256];c:f32[10,256];c:f32[10]|f32[1,10]|",
    ]


def test_signed_integers_are_converted_with_their_channels_first() -> None:
    asked = iter((8, 32))
    net = NetworkBuilder((3, 8, 8), lambda: next(asked) <= 8)
    found = keys(net.finish(net.conv(net.conv("input", 16), 16)))
    assert [key.partition("|")[0].removeprefix("plain:") for key in found] == [
        "Quantize", "Transpose", "Conv",
        "Transpose", "Dequantize", "Transpose", "Conv", "Transpose",
    ]  # fmt: skip
    assert "zero_point=1" in found[2]
    assert "zero_point" not in found[6]


def described(kernel: KernelSignature) -> tuple[object, ...]:
    """A convolution by what it reads, its weights and its result (channels first)."""
    read = tuple(t.dtype for t in kernel.inputs if t is not None and not t.constant)
    weight, (_, height, width, channels) = kernel.weight, kernel.outputs[0].shape
    assert weight is not None
    return read[0], len(read), weight.dtype, weight.shape, (1, channels, height, width)


@pytest.mark.skipif(
    find_spec("openvino") is None, reason='needs pip install "autocompress[openvino]"'
)
@pytest.mark.parametrize("network", reference_networks(30, seed=41), ids=lambda n: n.name)
def test_convolutions_are_those_of_the_executed_graph(network: Network) -> None:
    ops = network.ops
    derived = [k for _, k in lower(ops, quantized_tensors(ops)) if k.op == "plain:Conv"]
    executed = []
    for node in load_runtime("openvino").kernels(network.onnx()):
        if node.op_type != "Convolution":
            continue
        specs = [s for s in node.inputs if s is not None]
        weight = next(s for s in specs if s.constant and len(s.shape) >= 4)
        shape = tuple(d or 1 for d in weight.shape)
        if len(shape) == 5:  # groups, channels of a group …
            shape = (shape[0] * shape[1], *shape[2:])
        read = [s.dtype for s in specs if not s.constant]
        executed.append((read[0], len(read), weight.dtype, shape, node.outputs[0].shape))
    assert Counter(map(described, derived)) == Counter(executed)
