from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

from autocompress.compression.quantization import simulate_quantization
from autocompress.core.candidate import Candidate, LayerPolicy
from autocompress.errors import RequestError, StorageError
from autocompress.export.loaded_precision import LayerCount, asked, compare, loaded
from autocompress.export.onnx_export import export_onnx
from autocompress.export.stepwise import _codes, steps_apart
from autocompress.graph.precision import quantized_tensors, scale_roots
from autocompress.hardware.size import size_bytes
from autocompress.runtimes.onnxruntime import OnnxRuntime
from tests.unit.export.nets import (
    digit_graph,
    digits,
    export,
    export_captured,
    policies,
    realised,
)

RUNTIME = OnnxRuntime()
W8 = LayerPolicy(weight_bits=8, activation_bits=8)
FP = LayerPolicy()

CANDIDATES: dict[str, tuple[tuple[int, int], dict[str, LayerPolicy]]] = {
    "fp32": ((32, 32), {}),
    "w8a8": ((8, 8), {}),
    "w4a8": ((4, 8), {}),
    "w2a8": ((2, 8), {}),
    "w8a6": ((8, 6), {}),
    "w8a4": ((8, 4), {}),
    "w4a4": ((4, 4), {}),
    "w2a6": ((2, 6), {}),
    "activation bits of all kinds": (
        (8, 8),
        {
            "stem": LayerPolicy(4, 6),
            "body": LayerPolicy(8, 4),
            "depthwise": LayerPolicy(8, 6),
            "point": FP,
            "hidden": LayerPolicy(4, 4),
        },
    ),
    "w16a32": ((16, 32), {}),
    "w8a32": ((8, 32), {}),
    "w4a32": ((4, 32), {}),
    "w2a32": ((2, 32), {}),
    "float body": ((8, 8), {"body": FP}),
    "float depthwise and point": ((8, 8), {"depthwise": FP, "point": FP}),
    "float between": ((8, 8), {"depthwise": LayerPolicy(weight_bits=4)}),
    "float with clip tail between": ((8, 8), {"point": FP}),
    "float hidden": ((4, 8), {"hidden": FP}),
    "only body": ((32, 32), {"body": W8}),
    "every form": (
        (8, 8),
        {
            "body": LayerPolicy(weight_bits=4, activation_bits=8),
            "depthwise": LayerPolicy(weight_bits=16),
            "side": LayerPolicy(weight_bits=2, activation_bits=8),
            "hidden": LayerPolicy(weight_bits=2),
        },
    ),
    "low rank": ((8, 8), {"body": LayerPolicy(8, 8, rank=6), "hidden": LayerPolicy(4, 8, rank=8)}),
    "low rank float": ((8, 8), {"body": LayerPolicy(rank=6)}),
    "narrow": (
        (8, 8),
        {"point": LayerPolicy(8, 8, width=12), "hidden": LayerPolicy(8, 8, width=7)},
    ),
    "sparse": ((4, 8), {"body": LayerPolicy(4, 8, sparsity=0.7)}),
}


def _agreement(simulated: nn.Module, path: Path) -> tuple[float, float]:
    """Arg-max agreement and largest difference on the test digits."""
    x = digits()[2]
    with torch.no_grad():
        expected = simulated(x).numpy()
    found = RUNTIME.load(path).run([x.numpy()])[0]
    same = float((expected.argmax(1) == found.argmax(1)).mean())
    return same, float(np.abs(expected - found).max())


@pytest.mark.parametrize(("bits", "others"), CANDIDATES.values(), ids=CANDIDATES)
def test_the_runtime_computes_what_is_simulated(
    bits: tuple[int, int], others: dict[str, LayerPolicy], tmp_path: Path
) -> None:
    graph = digit_graph()
    made = export(graph, policies(graph, bits[0], bits[1], **others), tmp_path / "m.onnx")
    same, difference = _agreement(made.simulated, made.file.path)
    assert same >= 0.99
    if not any(op.is_integer_layer for op in made.ops):
        assert difference <= 1e-4
    apart = steps_apart(made.file, made.simulated, (digits()[2],), RUNTIME)
    assert all(steps.largest <= 1 and steps.share <= 0.001 for steps in apart.values())


@pytest.mark.parametrize(("bits", "others"), CANDIDATES.values(), ids=CANDIDATES)
def test_each_layer_runs_in_the_precision_asked_for(
    bits: tuple[int, int], others: dict[str, LayerPolicy], tmp_path: Path
) -> None:
    graph = digit_graph()
    made = export(graph, policies(graph, bits[0], bits[1], **others), tmp_path / "m.onnx")
    integer = sum(op.is_integer_layer for op in made.ops)
    floating = sum(op.layer is not None for op in made.ops) - integer
    assert asked(made.file.path) == LayerCount(integer, floating)
    assert loaded(RUNTIME.kernels(made.file.path), RUNTIME)[0] == LayerCount(integer, floating)
    assert compare(made.file.path, RUNTIME)[0]
    assert [layer.name for layer in made.file.layers] == [op.layer for op in made.ops if op.layer]


def test_an_integer_network_runs_without_a_float_kernel(tmp_path: Path) -> None:
    graph = digit_graph()
    made = export(graph, policies(graph, 4, 8), tmp_path / "m.onnx")
    kernels = Counter(k.op_type for k in RUNTIME.kernels(made.file.path))
    assert kernels["QLinearConv"] == 5
    assert kernels["QLinearAdd"] == kernels["QLinearConcat"] == 1
    assert kernels["QLinearGlobalAveragePool"] == 1
    assert kernels["QGemm"] == 2
    assert kernels["QuantizeLinear"] == 1
    assert kernels["DequantizeLinear"] == kernels["Relu"] == kernels["Clip"] == 0


@pytest.mark.parametrize("bits", [4, 6])
def test_fewer_activation_bits_stay_integers_with_a_clip_each(bits: int, tmp_path: Path) -> None:
    graph = digit_graph()
    made = export(graph, policies(graph, 8, bits), tmp_path / "m.onnx")
    kernels = Counter(k.op_type for k in RUNTIME.kernels(made.file.path))
    assert kernels["QLinearConv"] == 5
    assert kernels["QLinearAdd"] == kernels["QLinearConcat"] == 1
    assert kernels["QLinearGlobalAveragePool"] == 1
    assert kernels["QGemm"] == 2
    assert kernels["QuantizeLinear"] == 1
    assert kernels["DequantizeLinear"] == kernels["Relu"] == 0
    assert kernels["Clip"] == len(set(scale_roots(made.ops).values()))
    codes = _codes(made.file, (digits()[2],), RUNTIME)
    assert max(int(found.max()) for found in codes.values()) == 2**bits - 1


def test_fewer_activation_bits_cost_a_clip_in_the_file_and_no_more(tmp_path: Path) -> None:
    graph = digit_graph()
    sizes = [
        export(graph, policies(graph, 8, bits), tmp_path / "m.onnx").file.size_bytes
        for bits in (8, 6, 4)
    ]
    assert 0 < sizes[1] - sizes[0] < 50 * 10
    assert abs(sizes[2] - sizes[1]) <= 2
    whole, clipped = (graph.operations(policies(graph, 8, bits)) for bits in (8, 4))
    promised = size_bytes(clipped, quantized_tensors(clipped))
    promised -= size_bytes(whole, quantized_tensors(whole))
    assert promised == pytest.approx(sizes[2] - sizes[0], abs=100)


def test_fewer_bits_make_a_smaller_file(tmp_path: Path) -> None:
    graph = digit_graph()
    for activations in (8, 32):
        bits = [32, 16, 8, 4, 2] if activations == 32 else [8, 4, 2]
        sizes = [
            export(graph, policies(graph, b, activations), tmp_path / f"{b}.onnx").file.size_bytes
            for b in bits
        ]
        assert sizes == sorted(sizes, reverse=True)
        assert len(set(sizes)) == len(sizes)


def test_narrower_and_low_rank_layers_make_a_smaller_file(tmp_path: Path) -> None:
    graph = digit_graph()
    full = export(graph, policies(graph, 8, 8), tmp_path / "full.onnx").file.size_bytes
    for others in (
        {"point": LayerPolicy(8, 8, width=8)},
        {"body": LayerPolicy(8, 8, rank=2)},
    ):
        made = export(graph, policies(graph, 8, 8, **others), tmp_path / "small.onnx")
        assert made.file.size_bytes < full


def test_opset_25_only_where_two_bits_need_it(tmp_path: Path) -> None:
    graph = digit_graph()
    assert export(graph, policies(graph, 4, 8), tmp_path / "4.onnx").file.opset == 21
    assert export(graph, policies(graph, 2, 8), tmp_path / "2.onnx").file.opset == 25


def test_the_file_holds_no_metadata_and_a_free_batch(tmp_path: Path) -> None:
    graph = digit_graph()
    path = export(graph, policies(graph, 8, 8), tmp_path / "m.onnx").file.path
    model = onnx.load(str(path))
    assert model.producer_name == "autocompress"
    assert not model.metadata_props
    assert not model.doc_string
    assert not model.graph.value_info
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    names = [tensor.name for tensor in model.graph.initializer]
    contents = [(t.data_type, tuple(t.dims), t.raw_data) for t in model.graph.initializer]
    assert len(set(names)) == len(names)
    assert len(set(contents)) == len(contents)
    session = RUNTIME.load(path)
    for batch in (1, 3):
        assert session.run([digits()[2][:batch].numpy()])[0].shape == (batch, 10)


def test_same_graph_same_bytes(tmp_path: Path) -> None:
    graph = digit_graph()
    candidate = policies(graph, 4, 8)
    first = export(graph, candidate, tmp_path / "a.onnx").file
    second = export(graph, candidate, tmp_path / "b.onnx").file
    assert first.sha256 == second.sha256
    assert first.path.read_bytes() == second.path.read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_export_leaves_the_graph_as_it_was(tmp_path: Path) -> None:
    graph = digit_graph()
    model, ops = realised(graph, policies(graph, 8, 8))
    simulated = simulate_quantization(model, ops, [digits()[0][:64]])
    simulated.train()
    before = {name: t.clone() for name, t in simulated.state_dict().items()}
    export_onnx(simulated, ops, (digits()[0][:1],), tmp_path / "m.onnx")
    assert simulated.training
    for name, tensor in simulated.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_float_graph_with_integer_operations_is_refused(tmp_path: Path) -> None:
    graph = digit_graph()
    model, ops = realised(graph, policies(graph, 8, 8))
    with pytest.raises(RequestError, match="simulate_quantization"):
        export_onnx(model, ops, (digits()[0][:1],), tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_a_folder_that_cannot_be_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    graph = digit_graph()
    model, ops = realised(graph, Candidate())
    with pytest.raises(StorageError, match="cannot write"):
        export_onnx(model, ops, (digits()[0][:1],), tmp_path / "file" / "m.onnx")


class _Tokens(nn.Module):
    """A linear layer over every row of a sequence, attention's products and norms."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(24)
        self.qkv = nn.Linear(24, 72)
        self.proj = nn.Linear(24, 24)
        self.up = nn.Linear(24, 48)
        self.down = nn.Linear(48, 24)
        self.head = nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(batch, length, 3, 2, width // 2).unbind(2)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(mixed.transpose(1, 2).reshape(batch, length, width))
        x = x + self.down(functional.gelu(self.up(x)))
        out: torch.Tensor = self.head(x.mean(1))
        return out


class _Odd(nn.Module):
    """Operators that the writer leaves to torch.onnx."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 8, 3, padding="same")
        self.second = nn.Conv2d(8, 8, 1)
        self.out = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(torch.roll(x, 1, 2)))
        left, right = x.chunk(2, 1)
        x = torch.cat([right, left], 1)
        x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        x = functional.hardswish(self.second(x))
        out: torch.Tensor = self.out(x.mean((2, 3)))
        return out


class _Activations(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(8))
        self.group = nn.GroupNorm(2, 4)
        self.out = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        functions: list[Callable[[torch.Tensor], torch.Tensor]] = [
            functional.silu, functional.gelu, functional.hardsigmoid, torch.sigmoid, torch.tanh,
            lambda v: functional.leaky_relu(v, 0.1), functional.elu, functional.hardtanh,
        ]  # fmt: skip
        for conv, function in zip(self.convs, functions, strict=True):
            x = function(conv(x)) * 0.5 + x
        x = functional.avg_pool2d(self.group(x), 2)
        out: torch.Tensor = self.out(functional.softmax(x.flatten(2), -1).max(-1).values)
        return out


class _NoBias(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3, bias=False)
        self.out = nn.Linear(6, 3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.out(torch.relu(self.conv(x)).amax((2, 3)))
        return out


OTHERS: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "tokens": (_Tokens, (6, 24)),
    "operators of torch.onnx": (_Odd, (4, 6, 6)),
    "activations": (_Activations, (4, 6, 6)),
    "no bias": (_NoBias, (4, 6, 6)),
}


@pytest.mark.parametrize("bits", [(32, 32), (8, 8), (4, 8), (4, 32), (8, 6), (4, 4)], ids=str)
@pytest.mark.parametrize(("kind", "shape"), OTHERS.values(), ids=OTHERS)
def test_other_architectures(
    kind: type[nn.Module], shape: tuple[int, ...], bits: tuple[int, int], tmp_path: Path
) -> None:
    torch.manual_seed(1)
    x = torch.randn(64, *shape)
    made = export_captured(kind(), bits, x, tmp_path / "m.onnx")
    with torch.no_grad():
        expected = made.simulated(x).numpy()
    found = RUNTIME.load(made.file.path).run([x.numpy()])[0]
    reach = max(float(expected.max() - expected.min()), 1e-6)
    # a step of what the last layers read, which has a share of the reach of its own
    limit = 1e-4 if bits[1] == 32 else 0.03 * reach * 256 / 2 ** bits[1]
    assert np.abs(expected - found).max() <= limit
    apart = steps_apart(made.file, made.simulated, (x,), RUNTIME)
    assert all(steps.largest <= 1 for steps in apart.values())
    assert compare(made.file.path, RUNTIME)[0], compare(made.file.path, RUNTIME)


def test_more_weights_than_a_file_can_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autocompress.export.onnx_export.LARGEST_BYTES", 1000)
    with pytest.raises(RequestError, match="use fewer bits or channels"):
        export(digit_graph(), Candidate(), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
