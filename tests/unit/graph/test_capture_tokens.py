"""Models whose inputs are token ids: what is captured, and which of their sizes stay free."""

from __future__ import annotations

import pickle
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import nn

from autocompress.compression.quantization import simulate_quantization
from autocompress.core.candidate import Candidate, LayerPolicy
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.elastic.space import ElasticSpace
from autocompress.export.onnx_export import export_onnx
from autocompress.graph.capture import free_axes, trace
from autocompress.graph.capture_check import random_like
from autocompress.graph.inspect import inspect_model

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 0, 0]])


class Mean(nn.Module):
    """The mean of embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 6, padding_idx=0)
        self.head = nn.Linear(6, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.table(ids).mean(1))
        return logits


class Flat(Mean):
    """For rows of just this length."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(60, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.table(ids).flatten(1))
        return logits


class Positions(Mean):
    """With positions, a mask and shapes that are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(12, 6))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        n, length = ids.shape
        x = self.table(ids) + self.positions[:length].expand(n, length, 6)
        real = (ids != 0).unsqueeze(2)
        x = x.view(n, length, 2, 3).transpose(1, 2).reshape(n, 2, -1).view(n, 2, length, 3)
        x = x.transpose(1, 2).reshape(n, length, 6)
        logits: torch.Tensor = self.head((x * real.float()).sum(1) / real.sum(1).clamp(min=1))
        return logits


class TwoOfOne(Mean):
    """One table, looked up twice."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.table(ids).mean(1) + self.table(ids.flip(1))[:, 0])
        return logits


@pytest.mark.parametrize(
    ("kind", "free"), [(Mean, (0, 1)), (Positions, (0, 1)), (Flat, (0,))], ids=lambda v: str(v)
)
def test_which_sizes_are_free(kind: type[Mean], free: tuple[int, ...], tmp_path: Path) -> None:
    """A graph that is captured, pickled, realised and exported takes any of them."""
    torch.manual_seed(0)
    model = kind().eval()
    space = ElasticSpace.from_model(model, (IDS,))
    graph = pickle.loads(pickle.dumps(space.graph))  # noqa: S301 - made here
    node = next(n for n in graph.module.graph.nodes if n.op == "placeholder")
    assert free_axes(node) == free
    realised = realise(ElasticModel(graph), Candidate())
    ops = graph.operations(Candidate())
    export_onnx(realised, ops, graph.example_inputs, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    for length in (10, 4, 1) if 1 in free else (10,):
        x = torch.randint(0, 10, (3, length))
        with torch.no_grad():
            expected = model(x)
            assert torch.allclose(realised(x), expected, atol=1e-6)
        (found,) = session.run(None, {"ids": x.numpy()})
        assert torch.allclose(torch.from_numpy(found), expected, atol=1e-5)


def test_an_embedding_is_a_layer() -> None:
    graph = inspect_model(Mean(), (IDS,))
    layer = graph.layers["table"]
    assert (layer.kind, layer.in_channels, layer.out_channels) == ("embedding", 10, 6)
    assert (layer.macs, layer.parameters, layer.input_shape) == (0, 60, (1, 10))
    assert isinstance(graph.submodule("table"), nn.Embedding)
    op = next(op for op in graph.operations(Candidate()) if op.layer == "table")
    assert (op.kind, op.shape, op.weight_shape, op.macs) == ("embedding", (1, 10, 6), (10, 6), 0)
    assert op.parameters == 60


def test_an_embedding_keeps_floats_at_its_ends() -> None:
    """Nothing enters it that could be rounded, whatever a policy asks for."""
    graph = inspect_model(Mean(), (IDS,))
    policy = LayerPolicy(weight_bits=8, activation_bits=8)
    ops = graph.operations(Candidate(layers={"table": policy}))
    op = next(op for op in ops if op.layer == "table")
    assert (op.weight_bits, op.activation_bits, op.is_integer_layer) == (8, 32, False)


def test_a_table_that_is_looked_up_twice_stays_in_floats() -> None:
    space = ElasticSpace.from_model(TwoOfOne(), (IDS,))
    assert space.graph.layers["table"].calls == 2
    assert not any(choice.name.endswith(":table") for choice in space.choices)


def test_narrow_rows_are_the_best_of_their_rank() -> None:
    torch.manual_seed(1)
    model = Mean()
    space = ElasticSpace.from_model(model, (IDS,))
    elastic = ElasticModel(space.graph, space.techniques).eval()
    candidate = Candidate(layers={"table": LayerPolicy(rank=3)})
    realised = realise(elastic, candidate)
    table, wide = realised.get_submodule("table.0"), realised.get_submodule("table.1")
    assert isinstance(table, nn.Embedding)
    assert isinstance(wide, nn.Linear)
    assert (table.weight.shape, wide.weight.shape) == ((10, 3), (6, 3))
    lost = (model.table.weight - table.weight @ wide.weight.T).detach()
    least = torch.linalg.svdvals(model.table.weight.detach().double())[3:].square().sum()
    assert float(lost.square().sum()) == pytest.approx(float(least), rel=1e-4)
    with torch.no_grad():
        assert torch.allclose(elastic.configure(candidate)(IDS), realised(IDS), atol=1e-6)


def test_integers_are_drawn_from_those_that_are_there() -> None:
    (drawn,) = random_like([IDS.expand(4, -1)])
    assert set(drawn.flatten().tolist()) <= set(IDS.flatten().tolist())
    assert len({tuple(row) for row in drawn.tolist()}) == 4
    assert torch.equal(random_like([IDS])[0], random_like([IDS])[0])


def test_rows_of_floats_keep_their_length() -> None:
    module = trace(nn.Linear(4, 2), (torch.randn(1, 4),))
    assert [free_axes(n) for n in module.graph.nodes if n.op == "placeholder"] == [(0,)]


class Tied(Mean):
    """Its last layer multiplies by the table."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 10, bias=False)
        self.head.weight = self.table.weight


def test_a_table_that_is_also_a_last_layers_weight_is_told() -> None:
    graph = inspect_model(Tied(), (IDS,))
    assert {"table", "head"} <= graph.layers.keys()
    (told,) = (s for s in graph.skipped if "shares a parameter" in s.reason)
    assert (told.name, "with table" in told.reason) == ("head", True)
    assert not [s for s in inspect_model(Mean(), (IDS,)).skipped if "shares" in s.reason]


@pytest.mark.parametrize("policy", [LayerPolicy(), LayerPolicy(weight_bits=8), LayerPolicy(rank=3)])
def test_the_row_of_padding_is_not_trained(policy: LayerPolicy) -> None:
    """Neither while weights are shared nor afterwards, in whatever form the table is stored."""
    space = ElasticSpace.from_model(Mean(), (IDS,))
    candidate = Candidate(layers={"table": policy})
    elastic = ElasticModel(space.graph, space.techniques).configure(candidate)
    realised = realise(elastic, candidate)
    ops = space.graph.operations(candidate)
    for model in (elastic, simulate_quantization(realised, ops, [IDS])):
        model(IDS).sum().backward()
        tables = [m for m in model.modules() if isinstance(m, nn.Embedding)]
        weights = [m.weight for m in tables] or [elastic.layers["table"].weight]
        for weight in weights:
            assert weight.grad is not None
            assert not weight.grad[0].any() or policy.rank
            assert weight.grad[1:].any()
    if policy.rank:
        (table,) = (m for m in realised.modules() if isinstance(m, nn.Embedding))
        assert table.padding_idx == 0
