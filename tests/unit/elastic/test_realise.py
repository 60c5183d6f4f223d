"""A realised candidate is the configured elastic model, physically small."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.compression.quantization import Quantization, simulate_weights
from autocompress.core.candidate import Candidate, LayerPolicy
from autocompress.elastic.layers import ElasticLayer, ElasticNorm
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.errors import RequestError
from tests.unit.networks import SPACES, Flattened, example, graph, space

CANDIDATES = 34


@pytest.mark.parametrize("name", SPACES)
def test_random_candidates_run_as_they_are_simulated(name: str) -> None:
    """With every technique: widths, depths, branches, kernels, ranks, zeros and bits."""
    found = space(name)
    elastic = ElasticModel(found.graph, found.techniques).eval()
    rng = np.random.default_rng(2024)
    x = example(16, batch=2, seed=9)
    seen = set()
    told_apart = 0
    for _ in range(CANDIDATES):
        candidate = found.decode(found.sample(rng))
        seen.add(candidate.hash)
        ops = found.graph.operations(candidate)
        model = realise(elastic, candidate)
        elastic.configure(candidate)
        with torch.no_grad():
            expected = elastic(x)
            output = simulate_weights(model, ops)(x)
        assert float(expected.std()) > 1e-3
        told_apart += float((expected[0] - expected[1]).abs().max()) > 1e-4
        assert float((expected - output).abs().max()) <= 1e-4
        assert {op.name for op in ops} <= {node.name for node in model.graph.nodes}
    assert len(seen) == CANDIDATES
    assert told_apart >= 0.8 * CANDIDATES  # random weights in few bits can be deaf


def test_a_realised_model_is_plain_and_owns_its_weights() -> None:
    found = space("resnet")
    elastic = ElasticModel(found.graph, found.techniques).eval()
    model = realise(elastic, found.decode(found.sample(np.random.default_rng(0))))
    assert not model.training
    assert not any(isinstance(m, ElasticLayer | ElasticNorm) for m in model.modules())
    shared = {p.data_ptr() for p in elastic.parameters()}
    assert not shared & {p.data_ptr() for p in model.parameters()}
    before = model(example(16))
    with torch.no_grad():
        for parameter in elastic.parameters():
            parameter.zero_()
    assert torch.equal(model(example(16)), before)


def test_nothing_of_a_skipped_block_or_another_branch_is_left() -> None:
    found = space("tiny_cnn")
    candidate = Candidate(architecture={"depth:stages.1": 0, "branch:stages.0.0.body": "separable"})
    names = {n for n, _ in realise(ElasticModel(found.graph), candidate).named_parameters()}
    assert not [n for n in names if n.startswith(("stages.1.1", "stages.1.2"))]
    assert not [n for n in names if n.startswith("stages.0.0.body.branches.dense")]
    assert [n for n in names if n.startswith("stages.0.0.body.branches.separable")]


def test_low_rank_is_two_layers_under_the_layers_name() -> None:
    found = space("resnet")
    candidate = Candidate(layers={"layer3.1.conv1": LayerPolicy(rank=4)})
    model = realise(ElasticModel(found.graph, found.techniques), candidate)
    first, second = (model.get_submodule(f"layer3.1.conv1.{i}") for i in (0, 1))
    assert isinstance(first, nn.Conv2d)
    assert isinstance(second, nn.Conv2d)
    assert first.weight.shape == (4, 24, 3, 3)
    assert second.weight.shape == (24, 4, 1, 1)
    assert first.bias is None


def test_zeros_are_in_the_weights() -> None:
    found = space("resnet")
    candidate = Candidate(layers={"fc": LayerPolicy(sparsity=0.7)})
    model = realise(ElasticModel(found.graph, found.techniques), candidate)
    weight = model.get_submodule("fc").weight
    assert isinstance(weight, torch.Tensor)
    assert int((weight == 0).sum()) == 168


def test_the_elastic_model_is_left_as_it_was() -> None:
    found = space("resnet")
    elastic = ElasticModel(found.graph, found.techniques).eval()
    rng = np.random.default_rng(4)
    elastic.configure(found.decode(found.sample(rng)))
    before, candidate = elastic(example(16)), elastic.candidate
    realise(elastic, found.decode(found.sample(rng)))
    assert elastic.candidate is candidate
    assert torch.equal(elastic(example(16)), before)


@pytest.mark.parametrize(
    "policy",
    [LayerPolicy(weight_bits=16, activation_bits=8), LayerPolicy(width=99)],
    ids=["no deployed form", "too wide"],
)
def test_also_when_the_candidate_is_refused(policy: LayerPolicy) -> None:
    found = graph(Flattened)
    elastic = ElasticModel(found, [Quantization()]).eval()
    elastic.configure(Candidate(layers={"conv": LayerPolicy(width=5)}))
    before = elastic(example())
    with pytest.raises(RequestError):
        realise(elastic, Candidate(layers={"conv": policy}))
    assert torch.equal(elastic(example()), before)
