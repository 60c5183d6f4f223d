"""Embeddings of places, whose ids no input gives, as in BERT and GPT."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import nn

from autocompress.compression.registry import make_techniques
from autocompress.compression.simulation import simulate_quantization
from autocompress.core.candidate import Candidate, LayerPolicy
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.export.onnx_export import export_onnx
from autocompress.graph.inspect import inspect_model
from autocompress.graph.model_graph import ModelGraph
from autocompress.graph.precision import quantized_tensors
from autocompress.hardware.lowerings.onnxruntime_cpu.lower import lower
from autocompress.hardware.lowerings.plain import PLAIN, lowering
from autocompress.hardware.size import size_bytes
from autocompress.measurement.kernels import signatures
from autocompress.measurement.synthesis import synthesise
from autocompress.runtimes.registry import load_runtime

ROWS, WIDTH, LENGTH = 300, 32, 10
IDS = torch.randint(1, 50, (1, LENGTH), generator=torch.Generator().manual_seed(0))


class Counted(nn.Module):
    """Places that are counted for each row."""

    free = True

    def __init__(self) -> None:
        super().__init__()
        self.table, self.places = nn.Embedding(50, WIDTH), nn.Embedding(ROWS, WIDTH)
        self.norm, self.hidden = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 3)
        self.register_buffer("place_ids", torch.arange(ROWS).unsqueeze(0))

    def where(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.arange(ids.shape[1])

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.table(ids) + self.places(self.where(ids))
        logits: torch.Tensor = self.head(torch.relu(self.hidden(self.norm(x))).mean(1))
        return logits


class Cut(Counted):
    """Places that lie in a buffer."""

    def where(self, ids: torch.Tensor) -> torch.Tensor:
        return self.get_buffer("place_ids")[:, : ids.shape[1]]


class Fixed(Counted):
    """For rows of one length."""

    free = False

    def where(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.arange(LENGTH)


class FixedAndNormed(Fixed):
    """With what no input reaches behind the places."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.table(ids) + self.norm(self.places(self.where(ids)).unsqueeze(0))
        logits: torch.Tensor = self.head(torch.relu(self.hidden(x)).mean(1))
        return logits


CANDIDATES = {
    "fp32": Candidate(),
    "4 bits": Candidate(layers={"places": LayerPolicy(weight_bits=4)}),
    "rank 4": Candidate(layers={"places": LayerPolicy(rank=4)}),
}


KINDS: dict[str, type[Counted]] = {
    kind.__name__: kind for kind in (Counted, Cut, Fixed, FixedAndNormed)
}


@cache
def graph(name: str) -> ModelGraph:
    torch.manual_seed(0)
    return inspect_model(KINDS[name]().eval(), (IDS,))


@pytest.mark.parametrize("name", CANDIDATES)
@pytest.mark.parametrize("kind", KINDS.values())
def test_what_is_priced_is_what_runs(kind: type[Counted], name: str, tmp_path: Path) -> None:
    """Kernels agree but for those that find the places; the bytes of the table are known."""
    candidate, path = CANDIDATES[name], tmp_path / "m.onnx"
    ops = graph(kind.__name__).operations(candidate)
    quantized = quantized_tensors(ops)
    folded = [op for op in ops if op.is_folded]
    assert bool(folded) != kind.free
    realised = realise(ElasticModel(graph(kind.__name__), make_techniques(None)).eval(), candidate)
    model = simulate_quantization(realised, ops, [IDS])
    made = export_onnx(model, ops, (IDS,), path)
    for length in (LENGTH, 4) if kind.free else (LENGTH,):
        x = IDS[:, :length].repeat(2, 1)
        (found,) = onnxruntime.InferenceSession(path).run(None, {"ids": x.numpy()})
        with torch.no_grad():
            assert torch.allclose(model(x), torch.from_numpy(found), atol=1e-5)
    held = 8 * ROWS if kind is Cut else 0  # the places themselves
    assert made.size_bytes - held == pytest.approx(size_bytes(ops, quantized), rel=0.1)
    mine, runs = lower(ops, quantized), signatures(load_runtime().kernels(path))
    passing = {"Shape", "Slice", "Unsqueeze", "Squeeze", "Range"}
    kept = [sorted(k.op_type for k in of if k.op_type not in passing) for of in (mine, runs)]
    if kind is Counted and name != "4 bits":  # a table of floats is cut, not looked up in
        kept[0].remove("Gather")
    assert kept[0] == kept[1]
    owners = {owner for owner, _ in lowering(PLAIN)(ops, quantized)}
    assert owners.isdisjoint(op.name for op in folded)
    session = onnxruntime.InferenceSession(synthesise(ops, quantized))
    assert session.run(None, {"ids": IDS.numpy()})[0].shape == (1, 3)


@pytest.mark.parametrize("kind", KINDS.values())
def test_every_parameter_is_counted_once(kind: type[Counted]) -> None:
    ops = graph(kind.__name__).operations(Candidate())
    norm = 2 * WIDTH  # whose parameters no operation holds
    whole = sum(p.numel() for p in kind().parameters()) - norm
    assert sum(op.parameters for op in ops) == whole
