"""Operators that make and use masks: priced as what runs, written by the exporter itself."""

from __future__ import annotations

import math
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import nn

from autocompress.core.candidate import Candidate
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.export.onnx_export import export_onnx
from autocompress.graph.inspect import inspect_model
from autocompress.graph.precision import quantized_tensors
from autocompress.hardware.lowerings.onnxruntime_cpu.lower import lower
from autocompress.hardware.lowerings.plain import PLAIN, lowering
from autocompress.measurement.kernels import signatures
from autocompress.measurement.synthesis import synthesise
from autocompress.runtimes.registry import load_runtime

LENGTH, WIDTH = 10, 6
IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 0, 0]])


class OfIds(nn.Module):
    """Comparisons of integers; a mask that fills, and one that multiplies."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(10, WIDTH), nn.Linear(WIDTH, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.table(ids)
        hidden = torch.logical_not(ids > 0).unsqueeze(2)
        x = x.masked_fill(hidden, -math.inf).clamp(min=-2.0, max=3.0)
        real = (ids != 0).unsqueeze(2).float() - (ids == 9).unsqueeze(2).float()
        x = (1.0 - x) * real * (ids < 6).unsqueeze(2).float()
        logits: torch.Tensor = self.head(x.sum(1) / real.sum(1).clamp(min=1.0))
        return logits


class OfFloats(OfIds):
    """Comparisons of floats, and reductions of several axes."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.table(ids)
        loud = (x > 0.5).float() - (x < 0.25).float()
        whole = loud.sum((1, 2), keepdim=True).clamp(max=4.0)
        x = x - x.mean(2, keepdim=True) * whole
        logits: torch.Tensor = self.head(x.mean(1) - x.sum(2).mean(1, keepdim=True))
        return logits


@pytest.mark.parametrize("kind", [OfIds, OfFloats])
def test_what_is_priced_is_what_runs(kind: type[nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    graph = inspect_model(kind().eval(), (IDS,))
    ops = graph.operations(Candidate())
    assert not [op.kind for op in ops if op.kind.startswith("aten.")]
    model = realise(ElasticModel(graph, []).eval(), Candidate())
    export_onnx(model, ops, (IDS,), tmp_path / "m.onnx")
    (found,) = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, {"ids": IDS.numpy()})
    with torch.no_grad():
        assert torch.allclose(model(IDS), torch.from_numpy(found), atol=1e-5)
    runs = signatures(load_runtime().kernels(tmp_path / "m.onnx"))
    mine = lower(ops, quantized_tensors(ops))
    assert sorted(k.key for k in mine if not k.is_view) == sorted(
        k.key for k in runs if not k.is_view
    )
    assert len(lowering(PLAIN)(ops, quantized_tensors(ops))) >= len(mine) - 1
    stand_in = onnxruntime.InferenceSession(synthesise(ops, quantized_tensors(ops)))
    assert stand_in.run(None, {"ids": IDS.numpy()})[0].shape == (1, 3)
