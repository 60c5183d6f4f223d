"""Shared weights: sorted without changing the function, configured without copying."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.compression.low_rank import LowRank
from autocompress.core.candidate import Candidate, LayerPolicy
from autocompress.elastic.model import ElasticModel, reorder_channels, sort_channels
from autocompress.errors import RequestError
from autocompress.graph.model_graph import ModelGraph
from tests.unit.networks import SPACES, Concatenated, Flattened, example, graph, space


def _narrow(found: ModelGraph, name: str, width: int) -> Candidate:
    group = found.groups[name]
    return Candidate(layers=dict.fromkeys(group.producers, LayerPolicy(width=width)))


def _close(first: torch.Tensor, second: torch.Tensor) -> bool:
    return float(first.std()) > 1e-3 and torch.allclose(first, second, atol=1e-4)


@pytest.mark.parametrize("name", SPACES)
def test_the_sorted_full_model_equals_the_original(name: str) -> None:
    found = space(name).graph
    x = example(16)
    with torch.no_grad():
        assert _close(found.module(x), ElasticModel(found).eval()(x))


@pytest.mark.parametrize("kind", [Concatenated, Flattened])
def test_so_do_unusual_groups(kind: type[nn.Module]) -> None:
    found = graph(kind)
    sorted_weights = sort_channels(found)
    assert not torch.equal(
        next(sorted_weights.parameters()), next(found.module.parameters())
    )  # fmt: skip
    with torch.no_grad():
        assert _close(found.module(example()), sorted_weights(example()))


def test_any_order_of_channels_is_the_same_function() -> None:
    found = space("mobilenet").graph
    generator = torch.Generator().manual_seed(2)
    orders = {
        name: torch.randperm(group.channels, generator=generator)
        for name, group in found.groups.items()
        if group.rigid is None
    }
    with torch.no_grad():
        assert _close(found.module(example(16)), reorder_channels(found, orders)(example(16)))


def test_the_most_important_channels_come_first() -> None:
    """By hand: the mean of the producer's and the reader's squared weights, each normalised."""
    found = graph(Flattened)
    conv, fc = found.module.get_submodule("conv"), found.module.get_submodule("fc")
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(fc, nn.Linear)
    out = conv.weight.detach().pow(2).sum((1, 2, 3))
    read = fc.weight.detach().pow(2).sum(0).reshape(8, 16).sum(1)
    score = out / out.mean() + read / read.mean()
    best = score.argsort(descending=True)[:3]
    elastic = ElasticModel(found).configure(_narrow(found, "conv", 3)).eval()
    with torch.no_grad():
        y = torch.relu(nn.functional.conv2d(example(), conv.weight[best], conv.bias[best], 1, 1))  # type: ignore[index]
        y = nn.functional.max_pool2d(y, 2).flatten(1)
        columns = (best[:, None] * 16 + torch.arange(16)).flatten()
        expected = nn.functional.linear(y, fc.weight[:, columns], fc.bias)
        assert _close(expected, elastic(example()))


def test_configuring_back_restores_everything() -> None:
    found = space("tiny_cnn")
    elastic = ElasticModel(found.graph, found.techniques).eval()
    rng = np.random.default_rng(0)
    with torch.no_grad():
        first = elastic(example(16))
        for _ in range(3):
            elastic.configure(found.decode(found.sample(rng)))
        changed = elastic(example(16))
        again = elastic.configure(Candidate())(example(16))
    assert torch.equal(first, again)
    assert not torch.allclose(first, changed)


def test_weights_are_not_copied_by_configuring() -> None:
    found = space("resnet")
    elastic = ElasticModel(found.graph, found.techniques)
    before = {n: (p.data_ptr(), p.clone()) for n, p in elastic.named_parameters()}
    elastic.configure(found.decode(found.sample(np.random.default_rng(1))))
    after = dict(elastic.named_parameters())
    assert set(after) == set(before)
    for name, (place, value) in before.items():
        assert after[name].data_ptr() == place
        assert torch.equal(after[name], value)


def test_gradients_reach_the_kept_weights_only() -> None:
    found = graph(Flattened)
    elastic = ElasticModel(found).configure(_narrow(found, "conv", 3))
    elastic(example()).pow(2).sum().backward()
    weights = dict(elastic.weights.named_parameters())
    conv, fc = weights["conv.weight"].grad, weights["fc.weight"].grad
    assert conv is not None
    assert fc is not None
    assert bool((conv[:3].flatten(1).abs().sum(1) > 0).all())
    assert not conv[3:].any()
    assert not fc[:, 48:].any()
    assert fc[:, :48].any()


def test_a_candidate_of_another_model_is_refused() -> None:
    elastic = ElasticModel(graph(Flattened), [LowRank()])
    with pytest.raises(RequestError, match="no such layer"):
        elastic.configure(Candidate(layers={"elsewhere": LayerPolicy(rank=2)}))


def test_the_captured_model_is_not_touched() -> None:
    found = graph(Concatenated)
    before = {name: tensor.clone() for name, tensor in found.module.state_dict().items()}
    elastic = ElasticModel(found)
    with torch.no_grad():
        for parameter in elastic.parameters():
            parameter.zero_()
    assert all(torch.equal(before[n], t) for n, t in found.module.state_dict().items())
