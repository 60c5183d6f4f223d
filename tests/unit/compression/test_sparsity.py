"""Sparsity: exactly as many zeros as asked for, the smallest ones, where zeros pay."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.compression.parts import Part
from autocompress.compression.registry import make_techniques
from autocompress.compression.sparsity import RATIOS, Sparsity, magnitude_mask
from autocompress.core.candidate import Candidate, LayerPolicy
from autocompress.core.capabilities import Capabilities
from autocompress.core.space import Choice
from autocompress.errors import RequestError
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


@pytest.mark.parametrize(
    ("pattern", "sparsity"), [("2:4", 0.5), ("block:4x1", 0.7), ("block:1x4", 0.7)]
)
@pytest.mark.parametrize("rank", [2, 4])
def test_parts_that_a_pattern_does_not_fit_stay_as_they_are_and_say_so(
    pattern: str, sparsity: float, rank: int
) -> None:
    found = graph(ResNet)
    policy = LayerPolicy(sparsity=sparsity, pattern=pattern, rank=rank)
    shapes = [(rank, 24), (10, rank)]
    parts = [Part("linear", torch.randn(shape)) for shape in shapes]
    masked = Sparsity().realise(found.layers["fc"], policy, parts)
    ops = [op for op in found.operations(Candidate(layers={"fc": policy})) if op.kind == "linear"]
    assert [op.weight_shape for op in ops] == shapes
    for op, part in zip(ops, masked, strict=True):
        assert bool((part.weight == 0).any()) == (op.sparsity > 0)
    assert {op.sparsity for op in ops} == ({0.0, sparsity} if rank < 4 else {sparsity})


def test_refusals_give_the_pattern_s_reason() -> None:
    found = graph(ResNet)
    (refused,) = Sparsity.of(("2:4",)).refusals(found, Capabilities())
    assert (refused.name, refused.setting) == ("conv1", "2:4")
    assert "sums over 3 input channels" in refused.reason
    both = Sparsity().refusals(found, Capabilities(sparsity_patterns=("2:4",), stores_packed=True))
    assert both == [refused]


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


def _genes(technique: Sparsity, capabilities: Capabilities) -> dict[str, tuple[object, ...]]:
    return {c.name: c.options for c in technique.choices(graph(ResNet), capabilities)}


def test_patterns_are_offered_where_the_device_gains_by_them() -> None:
    faster = _genes(Sparsity(), Capabilities(sparsity_patterns=("2:4",)))
    assert faster["sparsity:fc"] == (0.0, "2:4")
    assert "sparsity:conv1" not in faster  # it reads three channels: no group of four
    both = Capabilities(sparsity_patterns=("2:4",), stores_packed=True)
    found = {c.name: c for c in Sparsity().choices(graph(ResNet), both)}
    assert found["sparsity:fc"].options == (*RATIOS, "2:4")
    assert not found["sparsity:fc"].ordered
    assert found["sparsity:conv1"].options == RATIOS
    assert found["sparsity:conv1"].ordered


def test_patterns_are_offered_where_they_are_asked_for_by_name() -> None:
    named = make_techniques(["sparsity:1:4", "sparsity:block:1x4", "pruning"])
    technique = next(t for t in named if isinstance(t, Sparsity))
    shares = tuple(f"block:1x4@{share}" for share in RATIOS[1:])
    assert _genes(technique, Capabilities())["sparsity:fc"] == (0.0, "1:4", *shares)
    with pytest.raises(RequestError, match="no variants such as '2:4'; ask for 'pruning'"):
        make_techniques(["pruning:2:4"])
    with pytest.raises(RequestError, match="pattern is '5:4'"):
        make_techniques(["sparsity:5:4"])
    with pytest.raises(RequestError, match="unknown technique 'nothing:2:4'"):
        make_techniques(["nothing:2:4"])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.7, {"sparsity": 0.7, "pattern": "unstructured"}),
        ("2:4", {"sparsity": 0.5, "pattern": "2:4"}),
        ("1:4", {"sparsity": 0.75, "pattern": "1:4"}),
        ("block:4x1@0.85", {"sparsity": 0.85, "pattern": "block:4x1"}),
    ],
)
def test_what_an_option_stands_for(value: float | str, expected: dict[str, object]) -> None:
    choice = Choice("sparsity:fc", (0.0, value))
    assert Sparsity().settings(choice, value) == expected
    LayerPolicy(**expected)  # type: ignore[arg-type]


def test_a_layer_that_does_not_fit_a_pattern_is_refused() -> None:
    layer = graph(ResNet).layers["conv1"]
    part = Part("conv", torch.randn(8, 3, 3, 3))
    with pytest.raises(
        RequestError, match=r"'conv1' cannot have zeros.*sums over 3 input channels"
    ):
        Sparsity().simulate(layer, LayerPolicy(sparsity=0.5, pattern="2:4"), [part])
