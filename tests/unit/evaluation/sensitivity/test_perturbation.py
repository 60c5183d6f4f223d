"""What the parts of a factorised layer amount to is a weight of the layer's own shape."""

from __future__ import annotations

import pytest
import torch

from autocompress.compression.low_rank import LowRank
from autocompress.compression.low_rank.registry import FORMS
from autocompress.compression.parts import Part
from autocompress.core.candidate import LayerPolicy
from autocompress.elastic.model import ElasticModel
from autocompress.evaluation.sensitivity.perturbation import Compressed
from autocompress.graph.inspect import inspect_model


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_the_parts_of_a_convolution_are_one_weight(form: str, stride: int, dilation: int) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(12, 16, 3, stride=stride, padding=1, dilation=dilation)
    )
    x = torch.randn(2, 12, 12, 12)
    graph = inspect_model(model, (x,))
    technique = LowRank([form])
    (name,) = graph.layers
    whole = ElasticModel(graph, [technique]).layers[name].sliced()
    policy = LayerPolicy(rank=4, factorization=form)
    transform = technique.simulate(graph.layers[name], policy, [whole])
    assert transform is not None
    with torch.no_grad():
        compressed = Compressed(whole, tuple(transform([whole])), 32)
        assert len(compressed.parts) > 1
        same = whole.with_weight(compressed.weight)
        assert torch.allclose(same(x), compressed(x), atol=1e-4)


def test_the_parts_of_a_linear_layer_are_one_weight() -> None:
    torch.manual_seed(0)
    whole = Part("linear", torch.randn(5, 7), torch.randn(5))
    parts = (Part("linear", torch.randn(2, 7)), Part("linear", torch.randn(5, 2), whole.bias))
    x = torch.randn(3, 7)
    compressed = Compressed(whole, parts, 32)
    assert torch.allclose(whole.with_weight(compressed.weight)(x), compressed(x), atol=1e-5)


def test_the_parts_of_an_embedding_are_one_table() -> None:
    torch.manual_seed(0)
    whole = Part("embedding", torch.randn(9, 6))
    parts = (Part("embedding", torch.randn(9, 2)), Part("linear", torch.randn(6, 2)))
    ids = torch.tensor([[0, 3, 8]])
    compressed = Compressed(whole, parts, 32)
    assert torch.allclose(whole.with_weight(compressed.weight)(ids), compressed(ids), atol=1e-6)
