"""Networks of shifted windows: elastic, realised, exported and priced, whatever the batch."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autocompress.compression.registry import make_techniques
from autocompress.compression.simulation import simulate_quantization
from autocompress.core.candidate import Candidate, LayerPolicy
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.elastic.space import ElasticSpace
from autocompress.evaluation.evaluator import uniform
from autocompress.export.onnx_export import export_onnx
from autocompress.export.stepwise import steps_apart
from autocompress.graph.inspect import inspect_model
from autocompress.hardware.predictor import LatencyPredictor
from autocompress.hardware.pricing import CandidatePricer
from autocompress.hardware.profile import RuntimeSpec
from autocompress.runtimes.onnxruntime import OnnxRuntime
from tests.unit.hardware.helpers import profile
from tests.unit.networks import EVERYTHING, randomise
from tests.unit.windowed_networks import VERSIONS, images, swin_graph

RUNTIME = OnnxRuntime()
#: Of the largest output.
TOLERANCE = 1e-4


@cache
def _elastic(version: str) -> ElasticModel:
    return ElasticModel(swin_graph(version), make_techniques(["pruning", "quantization"])).eval()


def _narrow(version: str) -> Candidate:
    widths = {"features.1.0.mlp.0": 20, "features.1.1.mlp.0": 8, "features.3.0.mlp.0": 36}
    return Candidate(layers={name: LayerPolicy(width=width) for name, width in widths.items()})


def _shallow(version: str) -> Candidate:
    stage = next(iter(swin_graph(version).stages))
    return Candidate(architecture={f"depth:{stage}": 1})


CANDIDATES = {"full": lambda _: Candidate(), "narrow": _narrow, "shallow": _shallow}


def _apart(expected: torch.Tensor, found: torch.Tensor) -> float:
    return float((expected - found).abs().max() / expected.abs().max())


@pytest.fixture(autouse=True)
def own_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every operator has an ONNX form of our own: nothing is traced a second time."""

    def refuse(*_: object) -> str:
        raise AssertionError("an operator has no form of its own")

    monkeypatch.setattr("autocompress.export.onnx_export.lower_through_torch", refuse)


@torch.no_grad()
@pytest.mark.parametrize("name", CANDIDATES)
@pytest.mark.parametrize("version", VERSIONS)
def test_floats_are_the_same_everywhere(version: str, name: str, tmp_path: Path) -> None:
    elastic, candidate = _elastic(version), CANDIDATES[name](version)
    model, path = realise(elastic, candidate), tmp_path / "m.onnx"
    export_onnx(model, elastic.graph.operations(candidate), (images(),), path)
    session = RUNTIME.load(path)
    full = elastic.configure(Candidate())(images(3))
    elastic.configure(candidate)
    for batch in (1, 3, 5):
        expected = model(images(batch))
        assert _apart(expected, elastic(images(batch))) <= TOLERANCE
        (found,) = session.run([images(batch).numpy()])
        assert _apart(expected, torch.from_numpy(found)) <= TOLERANCE
    assert (_apart(full, model(images(3))) > 1e-3) == (name != "full")


@torch.no_grad()
@pytest.mark.parametrize("version", VERSIONS)
def test_integers_are_the_same_to_a_step(version: str, tmp_path: Path) -> None:
    elastic = _elastic(version)
    candidate = uniform(elastic.graph.layers, 8, 8)
    ops = elastic.graph.operations(candidate)
    model = simulate_quantization(realise(elastic, candidate), ops, [images(8)])
    exported = export_onnx(model, ops, (images(),), tmp_path / "m.onnx")
    for batch in (1, 3):
        apart = steps_apart(exported, model, [images(batch)], RUNTIME)
        assert apart
        assert max(steps.largest for steps in apart.values()) <= 1


@pytest.mark.parametrize("version", VERSIONS)
def test_narrower_feed_forward_layers_are_smaller(version: str) -> None:
    elastic = _elastic(version)
    whole, small = (realise(elastic, c) for c in (Candidate(), _narrow(version)))
    first = small.get_submodule("features.1.0.mlp.0")
    assert isinstance(first, nn.Linear)
    assert (first.in_features, first.out_features) == (8, 20)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in whole.parameters())


@pytest.mark.parametrize("lowering", ["onnxruntime-cpu", "plain", "openvino-cpu"])
@pytest.mark.parametrize("version", VERSIONS)
def test_prices_of_many_are_those_of_each(version: str, lowering: str) -> None:
    """Tensors of six dimensions, and operators that have no kernel of a known kind."""
    space = ElasticSpace(
        swin_graph(version),
        name="swin",
        techniques=make_techniques(None),
        capabilities=EVERYTHING,
    )
    board = profile(runtime=RuntimeSpec(lowering=lowering))
    pricer = CandidatePricer(space, LatencyPredictor(board))
    generator = np.random.default_rng(0)
    genomes = np.stack([space.sample(generator) for _ in range(12)])
    columns = pricer.arrays(genomes)
    for i in range(0, len(genomes), 3):
        for name, value in pricer.exact(genomes[i]).items():
            assert columns[name][i] == pytest.approx(value, rel=1e-9, abs=1e-12), name
    assert all(columns["latency_ms"] > 0)


class Rows(nn.Module):
    """Unit vectors, rows of a table by their numbers, and a layer that no input reaches."""

    numbers: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 3)
        self.places = nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 6, bias=False))
        self.table = nn.Parameter(torch.randn(4, 6))
        self.register_buffer("numbers", torch.tensor([3, 0, -1, 2, 2]))
        self.register_buffer("grid", torch.randn(5, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.normalize(self.first(x), dim=-1) * x.norm(dim=1, keepdim=True)
        x = x + self.table[self.numbers] + self.places(self.grid)
        out: torch.Tensor = self.last(x).mean(1)
        return out


@torch.no_grad()
def test_operators_around_windows(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = randomise(Rows())
    graph = inspect_model(model, (torch.randn(1, 5, 6),))
    assert list(graph.layers) == ["first", "last"]
    reasons = {skipped.name: skipped.reason for skipped in graph.skipped}
    assert "computed when the model is loaded" in reasons["places.0"]
    assert "computed when the model is loaded" in reasons["places.2"]
    ops = graph.operations(Candidate())
    assert sum(op.parameters for op in ops) == sum(
        p.numel() for p in (*model.parameters(), *model.buffers())
    )
    realised = realise(ElasticModel(graph, []).eval(), Candidate())
    export_onnx(realised, ops, graph.example_inputs, tmp_path / "m.onnx")
    session = RUNTIME.load(tmp_path / "m.onnx")
    for batch in (1, 4):
        x = torch.randn(batch, 5, 6)
        (found,) = session.run([x.numpy()])
        assert _apart(model(x), torch.from_numpy(found)) <= TOLERANCE
    kinds = {kernel.op_type for kernel in RUNTIME.kernels(tmp_path / "m.onnx")}
    assert "Expand" not in kinds
    assert "Gather" not in kinds  # folded when the file is loaded
