"""One kernel per operation, with its fused tail and the conversions at precision borders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

from autocompress.graph.ops import Op
from autocompress.graph.precision import quantized_tensors
from autocompress.hardware.lowerings.plain import ACTIVATIONS, PLAIN, Fusion, lowering
from autocompress.hardware.lowerings.registry import load_lowering
from autocompress.measurement.kernels import KernelSignature
from autocompress.measurement.networks import Network, NetworkBuilder, reference_networks
from tests.unit.hardware.helpers import TinySpace

EVERYTHING = Fusion(ACTIVATIONS, residual=True, converts=True)
NETWORKS = reference_networks(18, seed=21)


def kernels(ops: tuple[Op, ...], fusion: Fusion = PLAIN) -> list[str]:
    return [kernel.key for _, kernel in lowering(fusion)(ops, quantized_tensors(ops))]


def operators(keys: Iterable[str]) -> list[str]:
    return [key.partition("|")[0].removeprefix("plain:") for key in keys]


def block(*bits: int) -> tuple[Op, ...]:
    """A stem, a residual block of two convolutions and a head; bits of the four layers."""
    asked = iter(bits)
    net = NetworkBuilder((3, 8, 8), lambda: next(asked) <= 8)
    x = net.op("relu", net.conv("input", 16))
    y = net.conv(net.op("relu", net.conv(x, 16)), 16)
    x = net.op("relu", net.op("add", x, y))
    return net.finish(net.linear(net.op("global_avg_pool", x, shape=(1, 16)), 10))


def test_float() -> None:
    assert kernels(block(32, 32, 32, 32)) == [
        'plain:Conv|f32[1,3,8,8];c:f32[16,3,3,3];c:f32[16]|f32[1,16,8,8]|activation="relu";pads=[1,1,1,1]',
        'plain:Conv|f32[1,16,8,8];c:f32[16,16,3,3];c:f32[16]|f32[1,16,8,8]|activation="relu";pads=[1,1,1,1]',
        "plain:Conv|f32[1,16,8,8];c:f32[16,16,3,3];c:f32[16]|f32[1,16,8,8]|pads=[1,1,1,1]",
        'plain:Add|f32[1,16,8,8];f32[1,16,8,8]|f32[1,16,8,8]|activation="relu"',
        "plain:GlobalAveragePool|f32[1,16,8,8]|f32[1,16]|",
        "plain:Gemm|f32[1,16];c:f32[10,16];c:f32[10]|f32[1,10]|",
    ]


def test_integers() -> None:
    assert kernels(block(8, 8, 4, 8)) == [
        "plain:Quantize|f32[1,3,8,8]|u8[1,3,8,8]|",
        'plain:Conv|u8[1,3,8,8];c:i8[16,3,3,3];c:i32[16]|u8[1,16,8,8]|activation="relu";pads=[1,1,1,1]',
        'plain:Conv|u8[1,16,8,8];c:i8[16,16,3,3];c:i32[16]|u8[1,16,8,8]|activation="relu";pads=[1,1,1,1]',
        "plain:Conv|u8[1,16,8,8];c:i8[16,16,3,3];c:i32[16]|u8[1,16,8,8]|pads=[1,1,1,1]",
        'plain:Add|u8[1,16,8,8];u8[1,16,8,8]|u8[1,16,8,8]|activation="relu"',
        "plain:GlobalAveragePool|u8[1,16,8,8]|u8[1,16]|",
        "plain:Gemm|u8[1,16];c:i8[10,16];c:i32[10]|f32[1,10]|",
    ]


def test_a_float_layer_among_integers_is_converted_to_and_from() -> None:
    assert operators(kernels(block(8, 32, 8, 8))) == [
        "Quantize", "Conv", "Dequantize", "Conv", "Quantize", "Conv", "Add",
        "GlobalAveragePool", "Gemm",
    ]  # fmt: skip


def test_kernels_that_convert_by_themselves() -> None:
    found = kernels(block(8, 32, 8, 8), EVERYTHING)
    assert operators(found) == [
        "Quantize", "Conv", "Dequantize", "Conv", "Conv", "GlobalAveragePool", "Gemm",
    ]  # fmt: skip
    assert found[3].startswith("plain:Conv|f32[1,16,8,8];c:f32[16,16,3,3];c:f32[16]|u8[1,16,8,8]|")


def test_no_integers_are_made_that_nobody_reads() -> None:
    asked = iter((8, 32))
    net = NetworkBuilder((3, 8, 8), lambda: next(asked) <= 8)
    ops = net.finish(net.conv(net.op("relu", net.conv("input", 16)), 16))
    assert operators(kernels(ops)) == ["Quantize", "Conv", "Dequantize", "Conv"]
    found = kernels(ops, EVERYTHING)
    assert operators(found) == ["Quantize", "Conv", "Conv"]
    assert "|f32[1,16,8,8]|" in found[1]


@pytest.mark.parametrize("bits", [32, 8], ids=["fp32", "int8"])
def test_the_residual_addition_runs_in_the_convolution(bits: int) -> None:
    ops = block(bits, bits, bits, bits)
    found = kernels(ops, EVERYTHING)
    assert "Add" not in operators(found)
    (residual,) = (k for k in found if k.partition("|")[2].count("[1,16,8,8]") == 3)
    assert residual.startswith("plain:Conv")
    assert 'activation="relu"' in residual


def test_the_residual_is_there_before_it_is_added() -> None:
    net = NetworkBuilder((3, 8, 8), lambda: False)
    x = net.op("relu", net.conv("input", 16))
    y = net.conv(x, 16)
    skip = net.conv(x, 16, kernel=1)
    ops = net.finish(net.op("add", y, skip))
    owners = [owner for owner, _ in lowering(EVERYTHING)(ops, frozenset())]
    assert owners == ["conv_1", skip, y]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.name)
@pytest.mark.parametrize("fusion", [PLAIN, EVERYTHING], ids=["plain", "everything"])
def test_every_layer_has_a_kernel_of_its_own(network: Network, fusion: Fusion) -> None:
    ops = network.ops
    owned = lowering(fusion)(ops, quantized_tensors(ops))
    layers = [op.name for op in ops if op.weight_shape]
    found = Counter(name for name, kernel in owned if kernel.weight is not None)
    assert found == Counter(layers)
    by_name = {op.name: op for op in ops}
    for name, kernel in owned:
        assert KernelSignature.parse(kernel.key) == kernel
        if kernel.weight is not None:
            assert kernel.macs == by_name[name].macs
            assert (kernel.weight.dtype == "int8") == by_name[name].is_integer_layer


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("fusion", [PLAIN, EVERYTHING], ids=["plain", "everything"])
def test_each_operand_was_made_before(seed: int, fusion: Fusion) -> None:
    space = TinySpace()
    ops = space.operations(space.random(1, seed)[0])
    made = {"f32[1,3,8,8]"}
    for key in kernels(ops, fusion):
        _, inputs, outputs, _ = key.split("|")
        assert {t for t in inputs.split(";") if not t.startswith("c:")} <= made
        made |= set(outputs.split(";"))


def test_unknown_operations_keep_their_name() -> None:
    ops = (
        Op("x", "input", (), (1, 4)),
        Op("odd", "aten.erf", ("x",), (1, 4)),
        Op("y", "output", ("odd",), (1, 4)),
    )
    assert kernels(ops) == ["plain:aten.erf|f32[1,4]|f32[1,4]|"]


def test_views_are_views() -> None:
    net = NetworkBuilder((1, 8, 8), lambda: False)
    ops = net.finish(net.linear(net.op("flatten", "input", shape=(1, 64)), 10))
    first = lowering(PLAIN)(ops, frozenset())[0][1]
    assert first.is_view


def test_it_is_registered() -> None:
    ops = block(8, 32, 8, 8)
    quantized = quantized_tensors(ops)
    assert load_lowering("plain")(ops, quantized) == lowering(PLAIN)(ops, quantized)
