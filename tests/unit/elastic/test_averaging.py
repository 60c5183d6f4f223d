"""The average of weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autocompress.elastic.averaging import WeightAverage


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def change(model: nn.Module, step: int) -> None:
    model(torch.randn(8, 3, generator=torch.Generator().manual_seed(step)))  # moves statistics
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(step)


def test_it_is_the_exponential_moving_average() -> None:
    model = network()
    average = WeightAverage(model, 0.5)
    expected = model.state_dict()["0.weight"].clone()
    for step in range(1, 9):
        change(model, step)
        average.update()
        keep = min(0.5, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * model.state_dict()["0.weight"]
    assert torch.allclose(average.tensors()["0.weight"], expected)
    assert "1.running_mean" in average.tensors()
    assert "1.num_batches_tracked" not in average.tensors()


def test_it_is_applied_for_a_while_or_for_good() -> None:
    model = network()
    average = WeightAverage(model, 0.9)
    change(model, 1)
    average.update()
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with average.applied():
        assert torch.equal(model.state_dict()["0.weight"], average.tensors()["0.weight"])
        assert not torch.equal(model.state_dict()["0.weight"], own["0.weight"])
    assert all(torch.equal(tensor, own[name]) for name, tensor in model.state_dict().items())
    average.apply()
    assert torch.equal(model.state_dict()["1.running_var"], average.tensors()["1.running_var"])


def test_going_on() -> None:
    model = network()
    average = WeightAverage(model, 0.9)
    for step in range(1, 4):
        change(model, step)
        average.update()
    other = WeightAverage(model, 0.9)
    other.take({n: t.clone() for n, t in average.tensors().items()}, average.updates)
    change(model, 4)
    for one in (average, other):
        one.update()
    assert all(torch.equal(t, other.tensors()[n]) for n, t in average.tensors().items())
    with pytest.raises(ValueError, match="another model"):
        average.take({"0.weight": torch.zeros(1)}, 1)
