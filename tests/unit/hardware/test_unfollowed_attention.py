"""An attention that is not rewritten is one operation, priced and written as its own kernels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autocompress.compression.simulation import simulate_quantization
from autocompress.core.candidate import Candidate
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.evaluation.evaluator import uniform
from autocompress.export.onnx_export import export_onnx
from autocompress.graph.inspect import inspect_model
from autocompress.graph.model_graph import ModelGraph
from autocompress.graph.precision import quantized_tensors
from autocompress.hardware.lowerings.onnxruntime_cpu.lower import lower
from autocompress.hardware.lowerings.plain import PLAIN, lowering
from autocompress.hardware.roofline import work_of
from autocompress.measurement.kernels import KernelSignature, signatures
from autocompress.measurement.synthesis import synthesise
from autocompress.runtimes.registry import load_runtime
from tests.unit.networks import randomise

LENGTH, HEADS, WIDTH = 6, 2, 16


class Slopes(nn.Module):
    """Each head adds a mask of its own to its scores, so its heads are no plain channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.slopes = nn.Parameter(torch.tensor([0.5, 2.0]).view(HEADS, 1, 1))
        self.head = nn.Linear(WIDTH, 3)

    def mask(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(2).unsqueeze(1).unsqueeze(1) * self.slopes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = self.mask(x)
        x = self.first(x)
        query, key, value = (
            m(x).unflatten(2, (HEADS, -1)).transpose(1, 2)
            for m in (self.query, self.key, self.value)
        )
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        logits: torch.Tensor = self.head(self.out(found.transpose(1, 2).flatten(2)).mean(1))
        return logits


class Biases(Slopes):
    """Each head adds a bias that is learned for each pair of places."""

    def __init__(self) -> None:
        super().__init__()
        self.biases = nn.Parameter(torch.randn(HEADS, LENGTH, LENGTH))

    def mask(self, x: torch.Tensor) -> torch.Tensor:
        return self.biases


@cache
def graph(kind: str = "Slopes") -> ModelGraph:
    torch.manual_seed(0)
    model = {"Slopes": Slopes, "Biases": Biases}[kind]()
    return inspect_model(randomise(model), (torch.randn(1, LENGTH, WIDTH),))


CANDIDATES = {"fp32": Candidate(), "int8": uniform(graph().layers, 8, 8)}


@pytest.mark.parametrize("name", CANDIDATES)
@pytest.mark.parametrize("kind", ["Slopes", "Biases"])
def test_an_analytic_device_multiplies_twice(kind: str, name: str) -> None:
    ops = graph(kind).operations(CANDIDATES[name])
    (attention,) = [op for op in ops if op.kind == "attention"]
    assert len(attention.inputs) == (4 if kind == "Slopes" else 3)
    mine = [k for owner, k in lowering(PLAIN)(ops, quantized_tensors(ops))
            if owner == attention.name and k.op_type not in ("Dequantize", "Quantize")]  # fmt: skip
    assert [k.op_type for k in mine] == ["MatMul", "Add", "Softmax", "MatMul"]
    products = sum(work_of(k) for k in mine if k.op_type == "MatMul")
    assert products == 2 * LENGTH * LENGTH * WIDTH


@pytest.mark.parametrize("name", CANDIDATES)
@pytest.mark.parametrize("kind", ["Slopes", "Biases"])
def test_what_is_priced_is_what_runs(kind: str, name: str, tmp_path: Path) -> None:
    """Its kernels and outputs; a network to time elsewhere has the same kernels."""
    candidate, path = CANDIDATES[name], tmp_path / "m.onnx"
    ops = graph(kind).operations(candidate)
    x = torch.randn(8, LENGTH, WIDTH)
    realised = realise(ElasticModel(graph(kind), []).eval(), candidate)
    model = simulate_quantization(realised, ops, [x])
    export_onnx(model, ops, graph(kind).example_inputs, path)
    (found,) = onnxruntime.InferenceSession(path).run(None, {"x": x.numpy()})
    with torch.no_grad():
        expected = model(x).numpy()
    tolerance = 1e-5 if name == "fp32" else 0.05
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()
    mine = lower(ops, quantized_tensors(ops))
    runs = signatures(load_runtime().kernels(path))
    assert _keys(mine) == _keys(runs)
    assert _types(mine) == _types(runs)
    stand_in = tmp_path / "stand_in.onnx"
    stand_in.write_bytes(synthesise(ops, quantized_tensors(ops)))
    (like,) = onnxruntime.InferenceSession(stand_in).run(None, {"x": x.numpy()})
    assert like.shape == found.shape
    if name == "fp32":
        assert _types(signatures(load_runtime().kernels(stand_in))) == _types(runs)


def _keys(kernels: Sequence[KernelSignature]) -> list[str]:
    """All but the multiplication by the slopes: of a constant only its size is known."""
    return sorted(k.key for k in kernels if not k.is_view and k.op_type != "Mul")


def _types(kernels: Sequence[KernelSignature]) -> list[str]:
    return sorted(k.op_type for k in kernels if not k.is_view)


class Same(nn.Module):
    """Tensors that meet themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(2 * WIDTH, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        x = F.scaled_dot_product_attention(x, x, x)
        x = torch.matmul(torch.matmul(x, x.transpose(1, 2)), x) / LENGTH
        y = torch.matmul(x, x.contiguous().transpose(1, 2)) @ x
        logits: torch.Tensor = self.head(torch.cat([y - y, y / (y + 3.0)], 2).mean(1))
        return logits


class Squares(nn.Module):
    """A tensor that is multiplied and concatenated with itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(8 * WIDTH, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x.mean(1)).unflatten(1, (8, 8))
        x = torch.matmul(x, x)
        x = x / x.contiguous() - x
        logits: torch.Tensor = self.head(torch.cat([x, x], 1).flatten(1))
        return logits


@pytest.mark.parametrize("kind", [Same, Squares])
def test_operands_that_are_one_tensor(kind: type[nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, LENGTH, WIDTH)
    found = inspect_model(randomise(kind()), (x,))
    ops = found.operations(Candidate())
    read = {op.kind: len(op.inputs) for op in ops}
    assert read["matmul"] == read["sub"] == read["concat"] == read["div"] == 2
    assert read.get("attention", 3) == 3
    export_onnx(realise(ElasticModel(found, []).eval(), Candidate()), ops, (x,), tmp_path / "m")
    runs = signatures(load_runtime().kernels(tmp_path / "m"))
    mine = lower(ops, quantized_tensors(ops))
    if kind is Squares:  # the other has transposes that run inside products
        assert _keys(mine) == _keys(runs)
    products = {"MatMul", "FusedMatMul"}
    assert [k in products for k in _types(mine)].count(True) == sum(
        k.op_type in products for k in runs
    )
    assert len(lowering(PLAIN)(ops, quantized_tensors(ops))) >= len(_types(runs))
    stand_in = onnxruntime.InferenceSession(synthesise(ops, quantized_tensors(ops)))
    assert stand_in.run(None, {"x": x.numpy()})[0].shape == (1, 3)
