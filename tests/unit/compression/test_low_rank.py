"""Low rank: the best approximation of its rank, at the price that is offered."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autocompress.compression.low_rank import (
    WORTHWHILE,
    LowRank,
    factorise,
    output_basis,
    rank_options,
)
from autocompress.compression.parts import Part
from autocompress.core.candidate import LayerPolicy
from autocompress.graph.model_graph import Layer


def _weight(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _layer(kind: str, weight: torch.Tensor, groups: int = 1, calls: int = 1) -> Layer:
    kernel = tuple(weight.shape[2:])
    return Layer(
        "layer", kind, weight.shape[1] * groups, weight.shape[0], kernel, (1,) * len(kernel),
        groups, 0, 0, (), calls,
    )  # fmt: skip


def _product(parts: list[Part]) -> torch.Tensor:
    first, second = parts
    return second.weight.flatten(1) @ first.weight.flatten(1)


@pytest.mark.parametrize("shape", [(12, 20), (20, 12), (16, 6, 3, 3), (8, 4, 1, 1)], ids=str)
@pytest.mark.parametrize("rank", [1, 3, 7])
def test_the_error_is_the_tail_of_the_singular_values(shape: tuple[int, ...], rank: int) -> None:
    """Eckart and Young 1936: no matrix of this rank is nearer."""
    weight = _weight(*shape)
    part = Part("linear" if len(shape) == 2 else "conv", weight)
    parts = factorise(part, output_basis(weight, rank))
    error = torch.linalg.norm(_product(parts) - weight.flatten(1))
    tail = torch.linalg.svdvals(weight.flatten(1).double())[rank:]
    assert float(error) == pytest.approx(float(tail.pow(2).sum().sqrt()), rel=1e-4, abs=1e-5)


def test_a_layer_of_low_rank_loses_nothing() -> None:
    weight = _weight(16, 3) @ _weight(3, 24, seed=1)
    part = Part("linear", weight, torch.ones(16))
    parts = factorise(part, output_basis(weight, 3))
    x = _weight(5, 24, seed=2)
    assert torch.allclose(parts[1](parts[0](x)), part(x), atol=1e-4)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(6, 12, 3, stride=2, padding=1),
        nn.Conv2d(6, 12, 3, padding=2, dilation=2, bias=False),
        nn.Conv2d(6, 12, 1),
    ],
    ids=["strided", "dilated", "pointwise"],
)
def test_convolutions_keep_stride_padding_and_bias(conv: nn.Conv2d) -> None:
    technique = LowRank()
    part = Part(
        "conv", conv.weight.detach(), None if conv.bias is None else conv.bias.detach(),
        (conv.stride[0], conv.stride[1]), (int(conv.padding[0]), int(conv.padding[1])),
        (conv.dilation[0], conv.dilation[1]),
    )  # fmt: skip
    rank = min(conv.weight.shape[0], conv.weight[0].numel()) - 1
    layer = _layer("conv", conv.weight)
    first, second = technique.realise(layer, LayerPolicy(rank=rank), [part])
    assert first.bias is None
    assert second.bias is part.bias
    x = _weight(2, 6, 9, 9)
    low = (output_basis(part.weight, rank) @ output_basis(part.weight, rank).T) @ (
        part.weight.flatten(1)
    )
    expected = part.with_weight(low.reshape(part.weight.shape))(x)
    assert torch.allclose(second(first(x)), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("rank", "groups", "count"),
    [(None, 1, 1), (12, 1, 1), (99, 1, 1), (3, 12, 1), (3, 1, 2)],
    ids=["not asked", "full rank", "beyond it", "depthwise", "already two"],
)
def test_where_it_does_nothing(rank: int | None, groups: int, count: int) -> None:
    weight = _weight(12, 20 // groups if groups == 1 else 1, 1, 1)
    parts = [Part("conv", weight, groups=groups)] * count
    layer = _layer("conv", weight, groups)
    assert LowRank().simulate(layer, LayerPolicy(rank=rank), parts) is None


@pytest.mark.parametrize(
    ("shape", "step", "expected"),
    [
        ((64, 64, 3, 3), 16, (32, 16)),
        ((128, 64, 3, 3), 16, (64, 32)),
        ((16, 16, 3, 3), 16, (8, 4)),
        ((64, 64, 1, 1), 16, (16,)),
        ((10, 64), 16, (4, 2)),
        ((256, 256), 16, (64,)),
        ((2, 64), 16, ()),
    ],
    ids=str,
)
def test_offered_ranks(shape: tuple[int, ...], step: int, expected: tuple[int, ...]) -> None:
    weight = torch.empty(shape)
    layer = _layer("linear" if len(shape) == 2 else "conv", weight)
    ranks = rank_options(layer, step)
    assert ranks == expected
    columns = weight[0].numel()
    for rank in ranks:
        assert rank * (columns + shape[0]) <= WORTHWHILE * weight.numel()


def test_nothing_is_offered_for_groups_and_shared_layers() -> None:
    weight = torch.empty(64, 64, 3, 3)
    assert rank_options(_layer("conv", weight), 8)
    assert not rank_options(_layer("conv", weight, groups=2), 8)
    assert not rank_options(_layer("conv", weight, calls=2), 8)


def test_gradients_flow_through_the_projection() -> None:
    weight = _weight(12, 20).requires_grad_()
    parts = factorise(Part("linear", weight), output_basis(weight, 4))
    _product(parts).sum().backward()  # type: ignore[no-untyped-call]
    basis = output_basis(weight, 4)
    assert weight.grad is not None
    assert torch.allclose(weight.grad, basis @ basis.T @ torch.ones(12, 20), atol=1e-5)
