"""Unstructured sparsity: exactly as many zeros as asked for, and the smallest ones."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.compression.parts import Part
from autocompress.compression.sparsity import RATIOS, Sparsity, magnitude_mask
from autocompress.core.candidate import LayerPolicy
from autocompress.core.capabilities import Capabilities
from tests.unit.networks import ResNet, graph


@settings(deadline=None)
@given(st.integers(1, 300), st.floats(0, 0.999), st.integers(0, 1000))
def test_exact_counts(size: int, sparsity: float, seed: int) -> None:
    weight = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    mask = magnitude_mask(weight, sparsity)
    assert int((mask == 0).sum()) == round(sparsity * size)
    assert int((mask == 1).sum()) == size - round(sparsity * size)


@settings(deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), st.floats(0, 0.999))
def test_no_kept_weight_is_smaller_than_a_removed_one(values: list[int], sparsity: float) -> None:
    weight = torch.tensor(values, dtype=torch.float32)
    mask = magnitude_mask(weight, sparsity).bool()
    if mask.any() and not mask.all():
        assert weight[mask].abs().min() >= weight[~mask].abs().max()


def test_ties_break_by_position() -> None:
    mask = magnitude_mask(torch.tensor([1.0, -1.0, 1.0, 2.0, -1.0]), 0.4)
    assert mask.tolist() == [0, 0, 1, 1, 1]
    assert magnitude_mask(torch.ones(2, 3), 0.5).tolist() == [[0, 0, 0], [1, 1, 1]]


def test_shape_and_type_are_kept() -> None:
    mask = magnitude_mask(torch.randn(4, 3, 2, 2, dtype=torch.float64), 0.25)
    assert mask.shape == (4, 3, 2, 2)
    assert mask.dtype == torch.float64


@pytest.mark.parametrize("ratio", RATIOS[1:])
def test_every_part_of_a_layer_gets_its_share(ratio: float) -> None:
    layer = graph(ResNet).layers["fc"]
    parts = [Part("linear", torch.randn(4, 20)), Part("linear", torch.randn(10, 4))]
    masked = Sparsity().realise(layer, LayerPolicy(sparsity=ratio), parts)
    for before, after in zip(parts, masked, strict=True):
        assert int((after.weight == 0).sum()) == round(ratio * before.weight.numel())
        kept = after.weight != 0
        assert torch.equal(after.weight[kept], before.weight[kept])


def test_gradients_reach_kept_weights_only() -> None:
    layer = graph(ResNet).layers["fc"]
    weight = torch.randn(4, 5, requires_grad=True)
    transform = Sparsity().simulate(layer, LayerPolicy(sparsity=0.5), [Part("linear", weight)])
    assert transform is not None
    transform([Part("linear", weight)])[0].weight.sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert torch.equal(weight.grad, magnitude_mask(weight, 0.5))


@pytest.mark.parametrize(
    ("capabilities", "offered"),
    [
        (Capabilities(), False),
        (Capabilities(sparsity_pays=True), True),
        (Capabilities(stores_packed=True), True),
    ],
    ids=["neither", "faster", "smaller"],
)
def test_it_is_offered_where_zeros_pay(capabilities: Capabilities, offered: bool) -> None:
    choices = Sparsity().choices(graph(ResNet), capabilities)
    assert bool(choices) is offered
    assert all(c.options == RATIOS for c in choices)
