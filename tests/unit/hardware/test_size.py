"""Estimated bytes of the exported file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.compression.quantization import simulate_quantization
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.elastic.space import ElasticSpace
from autocompress.export.onnx_export import export_onnx
from autocompress.graph.folding import fold_batch_norm
from autocompress.graph.ops import Op
from autocompress.graph.precision import quantized_tensors
from autocompress.hardware.size import size_bytes, weight_bytes
from tests.unit.networks import randomise
from tests.unit.networks import space as named_space


def linear(bits: int, activation_bits: int = 32) -> Op:
    return Op("l", "linear", ("x",), (1, 10), "l", (("bias", 1),), (10, 64), bits, activation_bits)


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        (linear(32), 4 * 650),
        (linear(16), 2 * 640 + 40),
        (linear(8, 8), 640 + 40 + 40 + 10),
        (linear(4, 8), 320 + 40 + 40 + 10),
        (linear(2, 8), 160 + 40 + 40 + 10),
        (linear(4), 320 + 40 + 40),
        (Op("r", "relu", ("x",), (1, 10)), 0),
    ],
    ids=lambda value: str(value)[:60],
)
def test_weights(op: Op, expected: int) -> None:
    assert weight_bytes(op) == expected


def test_exported_files_are_as_large_as_estimated(tmp_path: Path) -> None:
    space = named_space("tiny_cnn")
    elastic = ElasticModel(space.graph, space.techniques)
    randomise(elastic)
    rng = np.random.default_rng(2)
    example = space.graph.example_inputs
    for number in range(2):
        candidate = space.decode(space.sample(rng))
        ops = space.graph.operations(candidate)
        small = realise(elastic, candidate).eval()
        fold_batch_norm(small)
        simulated = simulate_quantization(small, ops, [torch.randn(8, *example[0].shape[1:])])
        path = tmp_path / f"{number}.onnx"
        export_onnx(simulated, ops, example, path)
        estimate = size_bytes(ops, quantized_tensors(ops))
        assert estimate == pytest.approx(path.stat().st_size, rel=0.05)


class _Twice(nn.Module):
    """One layer called twice, and a recurrent one whose weights no layer owns."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(32, 32)
        self.memory = nn.LSTM(32, 24, batch_first=True)
        self.head = nn.Linear(24, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.shared(torch.relu(self.shared(x))))
        states, _ = self.memory(x)
        scores: torch.Tensor = self.head(states[:, -1])
        return scores


def test_weights_are_counted_once_whoever_owns_them() -> None:
    model = _Twice()
    space = ElasticSpace.from_model(model, (torch.randn(1, 5, 32),))
    ops = space.graph.operations(space.decode(space.original))
    assert sum(op.parameters for op in ops) == sum(p.numel() for p in model.parameters())
    stored = 4 * sum(p.numel() for p in model.parameters())
    assert stored <= size_bytes(ops, ()) <= stored + 2500
