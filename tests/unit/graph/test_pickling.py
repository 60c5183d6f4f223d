"""A captured model survives the way to a worker process, node names included."""

from __future__ import annotations

import copy
import operator
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autocompress.core.candidate import Candidate
from autocompress.elastic.model import ElasticModel
from autocompress.graph.inspect import inspect_model
from autocompress.graph.model_graph import ModelGraph
from autocompress.graph.pickling import from_plain, to_plain, without_graph
from tests.unit.networks import SPACES, Concatenated, example, graph, space


class Arguments(nn.Module):
    """Node arguments of every kind: lists of nodes, slices, keywords, dtypes, constants."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.scale = nn.Parameter(torch.rand(8, 1, 1))
        self.register_buffer("shift", torch.rand(8, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x) * self.scale + self.shift
        first, second = y.chunk(2, dim=1)
        z = torch.cat([first, second.clamp(min=0.1), torch.zeros_like(first)], dim=1)
        z = z.to(torch.float64).float() + torch.ones(z.shape[-1], dtype=torch.float32)
        return F.interpolate(z, scale_factor=2.0)[:, ::2].flatten(1)


def _description(found: ModelGraph) -> list[tuple[Any, ...]]:
    return [
        (n.name, n.op, n.target, str(n.args), str(n.kwargs), dict(n.meta))
        for n in found.module.graph.nodes
    ]


@pytest.mark.parametrize("way", ["pickle", "deepcopy"])
@pytest.mark.parametrize("name", [*SPACES, "concatenated", "arguments"])
def test_same_nodes_same_operations_same_outputs(name: str, way: str) -> None:
    if name == "arguments":
        found = inspect_model(Arguments(), (example(16),))
    else:
        found = graph(Concatenated) if name == "concatenated" else space(name).graph
    assert found.nodes  # a cached property must not be in the way
    back = (
        copy.deepcopy(found) if way == "deepcopy" else pickle.loads(pickle.dumps(found))  # noqa: S301 - our own bytes
    )
    assert _description(back) == _description(found)
    assert back.operations(Candidate()) == found.operations(Candidate())
    assert back.to_json() == found.to_json()
    assert not back.module.training
    x = example(found.example_inputs[0].shape[-1])
    with torch.no_grad():
        assert torch.equal(back.module(x), found.module(x))


def test_elastic_models_too() -> None:
    found = space("tiny_cnn")
    elastic = ElasticModel(found.graph, found.techniques).eval()
    candidate = found.decode(found.sample(np.random.default_rng(0)))
    elastic.configure(candidate)
    other = pickle.loads(pickle.dumps(elastic.configure(Candidate())))  # noqa: S301 - our own bytes
    with torch.no_grad():
        expected = elastic.configure(candidate)(example(16))
        assert torch.equal(other.configure(candidate)(example(16)), expected)
        for parameter in other.parameters():
            parameter.zero_()
        assert torch.equal(elastic(example(16)), expected)


def test_plain_values_share_the_tensors() -> None:
    module = graph(Concatenated).module
    back = from_plain(to_plain(module))
    pairs = zip(module.parameters(), back.parameters(), strict=True)
    assert all(a is b for a, b in pairs)
    assert set(without_graph(module).state_dict()) == set(module.state_dict())
    assert any(n.target is operator.getitem for n in module.graph.nodes) is False
