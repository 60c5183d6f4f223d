"""The emulated kernels are those of the loaded graph."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.compression.quantization import simulate_quantization
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.elastic.space import ElasticSpace
from autocompress.evaluation.evaluator import uniform
from autocompress.export.onnx_export import export_onnx
from autocompress.graph.folding import fold_batch_norm
from autocompress.graph.ops import Op
from autocompress.graph.precision import quantized_tensors
from autocompress.hardware.lowerings.onnxruntime_cpu.lower import lower, lower_by_op
from autocompress.measurement.kernels import signatures
from autocompress.measurement.networks import Network, NetworkBuilder, reference_networks
from autocompress.runtimes.registry import load_runtime
from tests.unit.hardware.helpers import TinySpace
from tests.unit.networks import space as named_space

torch.set_num_threads(1)


def assert_same_kernels(ops: tuple[Op, ...], model: bytes | Path) -> None:
    expected = Counter(k.key for k in signatures(load_runtime().kernels(model)))
    found = Counter(k.key for k in lower(ops, quantized_tensors(ops)))
    assert found == expected


@pytest.mark.parametrize("network", reference_networks(18, seed=21), ids=lambda n: n.name)
def test_reference_networks(network: Network) -> None:
    assert_same_kernels(network.ops, network.onnx())


@pytest.mark.parametrize("seed", range(12))
def test_odd_widths_ranks_and_mixed_precisions(seed: int) -> None:
    space = TinySpace()
    ops = space.operations(space.random(1, seed)[0])
    assert_same_kernels(ops, Network("x", ops).onnx())


@pytest.mark.parametrize("integer", [False, True], ids=["fp32", "int8"])
@pytest.mark.parametrize(
    "activation",
    ["relu", "relu6", "hardtanh", "hardswish", "sigmoid", "silu", "gelu", "tanh", "leaky_relu"],
)
def test_activations(activation: str, integer: bool) -> None:
    net = NetworkBuilder((3, 8, 8), lambda: integer)
    x = net.op(activation, net.conv("input", 16))
    x = net.op("global_avg_pool", net.conv(x, 16), shape=(1, 16))
    ops = net.finish(net.linear(net.op(activation, net.linear(x, 16)), 10))
    assert_same_kernels(ops, Network("x", ops).onnx())


@pytest.mark.parametrize("name", ["resnet", "tiny_cnn", "mobilenet"])
def test_exported_candidates(name: str, tmp_path: Path) -> None:
    space = named_space(name)
    elastic = ElasticModel(space.graph, space.techniques)
    rng = np.random.default_rng(3)
    example = space.graph.example_inputs
    for number in range(3):
        candidate = space.decode(space.sample(rng))
        ops = space.graph.operations(candidate)
        small = realise(elastic, candidate).eval()
        fold_batch_norm(small)
        simulated = simulate_quantization(small, ops, [torch.randn(8, *example[0].shape[1:])])
        path = tmp_path / f"{number}.onnx"
        export_onnx(simulated, ops, example, path)
        assert_same_kernels(ops, path)


class PreActivation(nn.Module):
    """Batch norms that no convolution takes in: at the input, behind others, at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.BatchNorm2d(3)
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.side = nn.Conv2d(32, 16, 1)
        self.norm = nn.BatchNorm2d(48)
        self.body = nn.Conv2d(48, 20, 3, padding=1)
        self.last = nn.BatchNorm2d(20)
        self.head = nn.Linear(20, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(self.first(x)))
        x = torch.cat([x, self.side(x)], 1)
        x = torch.relu(self.last(torch.relu(self.body(torch.relu(self.norm(x))))))
        logits: torch.Tensor = self.head(x.mean((2, 3)))
        return logits


@pytest.mark.parametrize("bits", [32, 8])
def test_batch_norms_of_their_own(bits: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    example = torch.randn(1, 3, 8, 8)
    space = ElasticSpace.from_model(PreActivation().eval(), (example,))
    candidate = uniform(list(space.graph.layers), bits, bits)
    ops = space.graph.operations(candidate)
    assert sum(op.kind == "batch_norm" for op in ops) == 3
    small = fold_batch_norm(realise(ElasticModel(space.graph, space.techniques), candidate).eval())
    simulated = simulate_quantization(small, ops, [torch.randn(8, 3, 8, 8)])
    export_onnx(simulated, ops, (example,), tmp_path / "m.onnx")
    assert_same_kernels(ops, tmp_path / "m.onnx")


def test_kernels_belong_to_operations() -> None:
    space = TinySpace()
    ops = space.operations(space.original)
    owned = lower_by_op(ops, quantized_tensors(ops))
    assert {name for name, _ in owned} <= {op.name for op in ops}
    assert tuple(kernel for _, kernel in owned) == lower(ops, quantized_tensors(ops))


def test_unknown_operations_keep_their_name() -> None:
    ops = (
        Op("x", "input", (), (1, 4)),
        Op("odd", "aten.erf", ("x",), (1, 4)),
        Op("y", "output", ("odd",), (1, 4)),
    )
    assert [k.op for k in lower(ops, frozenset())] == ["aten.erf"]
