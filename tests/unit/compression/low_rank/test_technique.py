"""The technique: where it applies, what is offered, what it remembers."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import pytest
import torch
from torch import nn

from autocompress.compression.low_rank import LowRank
from autocompress.compression.low_rank.memory import Memory
from autocompress.compression.low_rank.options import (
    WORTHWHILE,
    rank_name,
    rank_options,
    rank_settings,
)
from autocompress.compression.low_rank.registry import FORMS
from autocompress.compression.low_rank.vbmf import vbmf_rank
from autocompress.compression.parts import Part
from autocompress.compression.registry import make_techniques
from autocompress.core.candidate import Candidate, LayerPolicy
from autocompress.core.capabilities import Capabilities
from autocompress.elastic.model import ElasticModel
from autocompress.errors import RequestError
from autocompress.graph.factors import LayerShape, entering, factors, macs
from autocompress.graph.inspect import inspect_model
from autocompress.graph.model_graph import Layer

CONV = nn.Conv2d(24, 16, 3, padding=1)
ALL = tuple(FORMS)


def _part(conv: nn.Conv2d = CONV) -> Part:
    return Part("conv", conv.weight.detach(), None, padding=(1, 1), groups=conv.groups)


def _layer(conv: nn.Conv2d = CONV, calls: int = 1) -> Layer:
    graph = inspect_model(nn.Sequential(conv), (torch.zeros(1, conv.in_channels, 8, 8),))
    return replace(graph.layers["0"], calls=calls)


@pytest.mark.parametrize(
    ("rank", "count"),
    [(None, 1), (15, 1), (16, 1), (99, 1), (3, 2)],
    ids=["not asked", "no gain", "full rank", "beyond it", "already two"],
)
def test_where_it_does_nothing(rank: int | None, count: int) -> None:
    parts = [_part()] * count
    assert LowRank().simulate(_layer(), LayerPolicy(rank=rank), parts) is None


def test_groups_are_refused() -> None:
    conv = nn.Conv2d(16, 16, 3, padding=1, groups=4)
    with pytest.raises(RequestError, match=r"layer '0' cannot take .* groups.* no rank there"):
        LowRank().simulate(_layer(conv), LayerPolicy(rank=2), [_part(conv)])
    assert not rank_options(_layer(conv), conv, 4, ALL)


def test_a_narrowed_layer_that_no_longer_profits_stays_whole() -> None:
    layer, policy = _layer(), LayerPolicy(rank=8, factorization="cp")
    assert len(LowRank().realise(layer, policy, [_part()])) == 3
    narrow = _part().with_weight(CONV.weight.detach()[:4, :3])
    assert LowRank().simulate(layer, policy, [narrow]) is None


def test_an_unknown_form() -> None:
    with pytest.raises(RequestError, match=r"unknown form 'magic' of low rank; use svd, "):
        make_techniques(["low_rank:magic"])
    with pytest.raises(RequestError, match="technique 'pruning' has no variants such as 'half'"):
        make_techniques(["pruning:half"])


def test_forms_by_name() -> None:
    (made,) = make_techniques(["low_rank:tucker", "low_rank:cp"])
    assert isinstance(made, LowRank)
    assert made.forms == ("tucker", "cp")


@pytest.mark.parametrize("form", ALL)
@pytest.mark.parametrize("step", [4, 16])
@pytest.mark.parametrize(
    "module",
    [nn.Conv2d(64, 128, 3, 2, 1), nn.Conv2d(64, 64, 1), nn.Linear(256, 64), nn.Conv2d(3, 16, 5)],
    ids=["strided", "pointwise", "linear", "few inputs"],
)
def test_what_is_offered_saves_multiplications(
    module: nn.Conv2d | nn.Linear, form: str, step: int
) -> None:
    x = torch.zeros(1, 256) if isinstance(module, nn.Linear) else None
    x = torch.zeros(1, module.weight.shape[1], 9, 9) if x is None else x
    graph = inspect_model(nn.Sequential(module), (x,))
    layer, whole = graph.layers["0"], LayerShape.of(module)
    size = entering(layer, whole)
    assert macs((whole,), size) == layer.macs
    costs = []
    for name in rank_options(layer, module, step, (form,)):
        policy = LayerPolicy(**rank_settings(name))  # type: ignore[arg-type]
        assert rank_name(policy.factorization, policy.rank or 0, policy.input_rank) == name
        made = factors(layer, whole, policy)
        assert made is not None
        costs.append(macs(made, size))
        ops = graph.operations(Candidate(layers={"0": policy}))
        assert sum(op.macs for op in ops) == costs[-1] <= WORTHWHILE * layer.macs
    assert costs == sorted(costs, reverse=True)


def test_few_are_offered_unless_asked() -> None:
    graph = inspect_model(nn.Sequential(nn.Conv2d(64, 64, 3)), (torch.zeros(1, 64, 8, 8),))
    (few,) = LowRank().choices(graph, Capabilities())
    (many,) = LowRank(ALL).choices(graph, Capabilities())
    assert few.options == (None, "spatial:48", "cp:64", "cp:32")
    assert {str(o).partition(":")[0] for o in many.options[1:]} == set(ALL)


def test_the_signals_rank_is_offered() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(64, 64, 3, padding=1)
    core = torch.einsum("pjhw,op,ij->oihw", *map(torch.randn, [(10, 17, 3, 3), (64, 10), (64, 17)]))
    with torch.no_grad():
        conv.weight.copy_(core / 10 + 0.02 * torch.randn(64, 64, 3, 3))
    layer = inspect_model(nn.Sequential(conv), (torch.zeros(1, 64, 8, 8),)).layers["0"]
    assert "svd:12" in rank_options(layer, conv, 4, ("svd",))
    assert "tucker:12x20" in rank_options(layer, conv, 4, ("tucker",))


@pytest.mark.parametrize("shape", [(60, 300), (300, 60), (80, 80)], ids=str)
@pytest.mark.parametrize("rank", [0, 1, 7, 20])
@pytest.mark.parametrize("noise", [0.0, 0.1, 1.0])
def test_variational_bayes_finds_planted_ranks(
    shape: tuple[int, int], rank: int, noise: float
) -> None:
    generator = torch.Generator().manual_seed(rank)
    left = torch.linalg.qr(torch.randn(shape[0], max(rank, 1), generator=generator))[0]
    right = torch.linalg.qr(torch.randn(shape[1], max(rank, 1), generator=generator))[0]
    signal = 60.0 * (left @ right.T) if rank else torch.zeros(shape)
    matrix = signal + noise * torch.randn(shape, generator=generator)
    assert vbmf_rank(matrix) == rank


@pytest.mark.parametrize("form", ALL)
def test_gradients_flow_and_no_weight_is_kept(form: str) -> None:
    weight = CONV.weight.detach().clone().requires_grad_()
    part = replace(_part(), weight=weight)
    transform = LowRank().simulate(_layer(), LayerPolicy(rank=4, factorization=form), [part])
    assert transform is not None
    x = torch.randn(1, 24, 8, 8)
    for made in transform([part]):
        x = made(x)
    x.pow(2).mean().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert float(weight.grad.abs().max()) > 0
    doubled = transform([part.with_weight(2 * weight.detach())])
    once = transform([part])
    assert torch.allclose(_multiplied(doubled), 2 * _multiplied(once), atol=1e-5)


def _multiplied(parts: list[Part]) -> torch.Tensor:
    x = torch.eye(24 * 9).reshape(-1, 24, 3, 3)
    with torch.no_grad():
        for part in parts:
            x = Part("conv", part.weight, groups=part.groups)(x)
    return x


def test_factorisations_are_remembered_while_the_weights_stay() -> None:
    graph = inspect_model(nn.Sequential(CONV), (torch.zeros(1, 24, 8, 8),))
    technique = LowRank()
    elastic = ElasticModel(graph, [technique]).eval()
    candidate = Candidate(layers={"0": LayerPolicy(rank=4)})
    memory = technique._memory
    for _ in range(3):
        elastic.configure(candidate)
    assert len(memory) == 1
    x = torch.randn(1, 24, 8, 8)
    before = elastic(x)
    with torch.no_grad():
        elastic.layers["0"].weight.copy_(torch.randn_like(CONV.weight))
    elastic.configure(candidate)
    assert len(memory) == 2
    fresh = ElasticModel(graph, [LowRank()]).eval()
    fresh.load_state_dict(elastic.state_dict())
    assert torch.equal(fresh.configure(candidate)(x), elastic(x))
    assert not torch.allclose(before, elastic(x))
    twin = copy.deepcopy(elastic).configure(candidate)
    assert torch.equal(twin(x), elastic(x))
    elastic.layers["0"].moments = torch.eye(216)
    elastic.configure(candidate)
    assert len(memory) == 3


def test_copies_of_a_memory_start_empty() -> None:
    memory: Memory[int] = Memory()
    assert memory.get("a", lambda: 1) == memory.get("a", lambda: 2) == 1
    assert memory.get(None, lambda: 3) == 3
    assert len(pickle.loads(pickle.dumps(memory))) == len(copy.deepcopy(memory)) == 0  # noqa: S301
    for i in range(500):
        memory.get(i, lambda: 0)
    assert len(memory) == 128


@pytest.mark.parametrize("name", ["svd", "svd:", "svd:0", "svd:4x", 16, True], ids=str)
def test_names_that_are_none(name: object) -> None:
    with pytest.raises(RequestError, match="use such as 'svd:16'"):
        rank_settings(name)  # type: ignore[arg-type]


def test_a_few_steps_of_training_need_no_new_factors() -> None:
    graph = inspect_model(nn.Sequential(CONV), (torch.zeros(1, 24, 8, 8),))
    technique = LowRank()
    elastic = ElasticModel(graph, [technique]).train()
    candidate = Candidate(layers={"0": LayerPolicy(rank=4)})
    weight = elastic.layers["0"].weight
    for number in range(60):
        elastic.at_step(number)
        elastic.configure(candidate)
        with torch.no_grad():
            weight.mul_(1.001)
    assert len(technique._memory) == 3
    elastic.at_step(None)
    fresh = ElasticModel(graph, [LowRank()]).eval()
    fresh.load_state_dict(elastic.state_dict())
    x = torch.randn(1, 24, 8, 8)
    assert torch.equal(fresh.configure(candidate)(x), elastic.eval().configure(candidate)(x))
