"""What enters the layers of an elastic model, in the order of its own channels."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional

from autocompress.compression.base import Technique
from autocompress.compression.low_rank import LowRank
from autocompress.compression.pruning import Pruning
from autocompress.core.candidate import Candidate, LayerPolicy
from autocompress.elastic import observing
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.observing import observe_inputs
from tests.unit.networks import Flattened, example, graph, space

X = example(batch=64)


def _observed(*techniques: Technique) -> ElasticModel:
    elastic = ElasticModel(graph(Flattened), techniques).eval()
    observe_inputs(elastic, Candidate(), [X])
    return elastic


def test_moments_are_those_of_what_the_weight_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observing, "PATCHES", 1 << 12)
    elastic = _observed(LowRank(["whitened"]))
    patches = functional.unfold(X, 3, padding=1).transpose(1, 2).reshape(-1, 27)
    moments = elastic.layers["conv"].moments
    assert moments is not None
    assert torch.allclose(moments, patches.T @ patches / len(patches), atol=1e-4)
    conv = elastic.layers["conv"]
    y = functional.conv2d(X, conv.weight, conv.bias, padding=1)
    rows = functional.max_pool2d(functional.relu(y), 2).flatten(1).detach()
    found = elastic.layers["fc"].moments
    assert found is not None
    assert torch.allclose(found, rows.T @ rows / len(rows), atol=1e-4)


def test_they_are_narrowed_with_the_weight() -> None:
    elastic = _observed(LowRank(["whitened"]), Pruning())
    elastic.configure(Candidate(layers={"conv": LayerPolicy(width=3)}))
    part = elastic.layers["fc"].sliced()
    full = elastic.layers["fc"].moments
    assert part.inputs is not None
    assert full is not None
    assert part.weight.shape == (5, 48)
    assert torch.equal(part.inputs(), full[:48, :48])


def test_they_are_cropped_with_the_kernel() -> None:
    layer = _observed(LowRank(["whitened"])).layers["conv"]
    layer.kernel = 1
    part = layer.sliced()
    assert part.inputs is not None
    assert layer.moments is not None
    centres = [4, 13, 22]
    assert torch.equal(part.inputs(), layer.moments[centres][:, centres])


def test_nothing_is_observed_where_no_technique_looks() -> None:
    def batches() -> None:
        pytest.fail("the batches were read")

    elastic = ElasticModel(graph(Flattened), [LowRank(["tucker"]), Pruning()])
    assert observe_inputs(elastic, Candidate(), (batches() for _ in range(1))) == []  # type: ignore[func-returns-value,misc]
    assert all(layer.moments is None for layer in elastic.layers.values())


def test_layers_that_are_too_long_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observing, "LONGEST", 64)
    elastic = ElasticModel(graph(Flattened), [LowRank(["whitened"])])
    assert observe_inputs(elastic, Candidate(), [X]) == ["conv"]
    monkeypatch.setattr(observing, "MOST_BYTES", 100)
    assert observe_inputs(elastic, Candidate(), [X]) == []
    assert elastic.layers["conv"].moments is None


def test_they_travel_with_the_model_but_not_with_its_weights() -> None:
    elastic = _observed(LowRank(["whitened"]))
    assert not [name for name in elastic.state_dict() if "moments" in name]
    candidate = Candidate(layers={"fc": LayerPolicy(rank=2, factorization="whitened")})
    copied = pickle.loads(pickle.dumps(elastic))  # noqa: S301 - our own bytes
    with torch.no_grad():
        expected = elastic.configure(candidate)(X)
        assert torch.equal(copied.configure(candidate)(X), expected)


def test_layers_that_do_not_run_have_none() -> None:
    found = space("resnet")
    elastic = ElasticModel(found.graph, [LowRank(["whitened"])])
    without = Candidate(architecture={"depth:layer2": 0})
    seen = observe_inputs(elastic, without, [example(16, batch=8)])
    assert "layer2.0.conv1" in seen
    assert "layer2.1.conv1" not in seen
    assert isinstance(elastic.weights.get_submodule("fc"), nn.Module)
