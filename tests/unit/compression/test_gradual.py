"""Sparsity that grows: the schedule, the criteria, and what training leaves of it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from autocompress.compression.gradual import (
    Goal,
    GradualLayers,
    GradualSparsity,
    LayerGoal,
    Schedule,
    choose_masks,
    cubic,
    part_of_mask,
)
from autocompress.compression.patterns.registry import make_pattern
from autocompress.compression.saliency.registry import SALIENCIES, make_saliency
from autocompress.errors import RequestError


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_schedule_rises_from_nothing_to_all(one: float, two: float) -> None:
    assert cubic(0) == 0
    assert cubic(1) == 1
    assert cubic(-1) == 0
    assert cubic(2) == 1
    assert (cubic(one) <= cubic(two)) == (one <= two) or cubic(one) == cubic(two)


@given(st.floats(0, 0.99), st.sampled_from(sorted(SALIENCIES)), st.booleans(), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_as_many_zeros_as_asked_for(
    sparsity: float, criterion: str, across: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: torch.randn(shape, generator=generator)
        for name, shape in {"a": (7, 11), "b": (3, 4, 3, 3), "c": (1, 5)}.items()
    }
    masks = choose_masks(make_saliency(criterion).scores(weights), sparsity, across=across)
    zeros = {name: int((mask == 0).sum()) for name, mask in masks.items()}
    if across:
        assert sum(zeros.values()) == round(sparsity * sum(w.numel() for w in weights.values()))
    else:
        assert zeros == {n: round(sparsity * w.numel()) for n, w in weights.items()}
    for name, mask in masks.items():
        kept, lost = weights[name].abs()[mask == 1], weights[name].abs()[mask == 0]
        if len(kept) and len(lost):
            assert float(lost.max()) <= float(kept.min())


def test_layer_adaptive_scores_are_those_of_the_paper() -> None:
    scores = make_saliency("layer_adaptive").scores({"w": torch.tensor([[3.0, -1.0], [2.0, 0.0]])})[
        "w"
    ]
    assert scores.tolist() == [[1.0, pytest.approx(1 / 14)], [pytest.approx(4 / 13), 0.0]]


def test_the_largest_weight_of_each_layer_stays() -> None:
    weights = {"small": 1e-3 * torch.randn(4, 4), "large": 1e3 * torch.randn(4, 4)}
    masks = choose_masks(make_saliency("layer_adaptive").scores(weights), 0.9, across=True)
    assert all(float(mask.sum()) >= 1 for mask in masks.values())


def test_training_ends_as_sparse_as_asked_for() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 2))
    pruner = GradualSparsity(model, ["0", "2"], Goal(0.8, end=0.5), every=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen = []
    for step in range(100):
        x = torch.randn(16, 20)
        loss = (model(x) - x[:, :2]).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        pruner((step + 1) / 100)
        seen.append(pruner.sparsity)
    assert seen == sorted(seen)
    assert seen[9] < 0.6
    assert seen[-1] == pytest.approx(0.8, abs=2e-3)
    zeros = sum(int((pruner.weights[n] == 0).sum()) for n in ("0", "2"))
    assert zeros == round(0.8 * 660)
    assert set(pruner.weights) == {"0", "2"}


def test_movement_scores_are_those_of_the_paper() -> None:
    """Two steps by hand: the sum of -w * dL/dw; magnitudes before any gradient was seen."""
    weight = torch.nn.Parameter(torch.tensor([2.0, -1.0, 0.5]))
    movement = make_saliency("movement")
    assert movement.scores({"w": weight})["w"].tolist() == [2.0, 1.0, 0.5]
    for gradient in ([1.0, 1.0, -2.0], [-3.0, 0.0, 1.0]):
        weight.grad = torch.tensor(gradient)
        movement.observe({"w": weight})
    assert movement.scores({"w": weight})["w"].tolist() == [4.0, 1.0, 0.5]
    weight.grad = None
    movement.observe({"w": weight})
    assert movement.scores({"w": weight})["w"].tolist() == [4.0, 1.0, 0.5]


def test_magnitude_scores() -> None:
    found = make_saliency("magnitude").scores({"w": torch.tensor([-2.0, 0.0, 1.0])})
    assert found["w"].tolist() == [2.0, 0.0, 1.0]


@given(st.floats(0, 1), st.integers(0, 99), st.sampled_from(["unstructured", "2:4", "block:2x2"]))
@settings(max_examples=40, deadline=None)
def test_a_part_of_a_mask_has_its_share_of_the_zeros(share: float, seed: int, name: str) -> None:
    scores = torch.randn(6, 10, generator=torch.Generator().manual_seed(seed))
    full = make_pattern(name).mask(scores, 0.6)
    part = part_of_mask(full, scores, share)
    lost = int((full == 0).sum())
    assert int((part == 0).sum()) == round(share * lost)
    assert bool((part >= full).all())
    removed, left = scores[part == 0], scores[(part == 1) & (full == 0)]
    if len(removed) and len(left):
        assert float(removed.max()) <= float(left.min())


@pytest.mark.parametrize("criterion", sorted(SALIENCIES))
@pytest.mark.parametrize("steps", [1, 3, 60])
def test_layers_end_in_their_own_patterns(criterion: str, steps: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 2), nn.Linear(2, 2))
    goals = {
        "0": LayerGoal(0.5, make_pattern("2:4")),
        "2": LayerGoal(0.85),
    }
    zeros = GradualLayers(model, goals, Schedule(criterion, every=4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    seen = []
    for step in range(steps):
        x = torch.randn(16, 20)
        loss = (model(x) - x[:, :2]).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        zeros((step + 1) / (2 * steps))  # the training is cut off half way
        seen.append(zeros.sparsity)
    assert seen == sorted(seen)
    assert seen[-1] < 0.6
    zeros.finish()
    weights = {name: tensor.detach() for name, tensor in model.named_parameters()}
    first, second, third = (weights[f"{i}.weight"] for i in (0, 2, 3))
    assert bool(((first.reshape(30, 5, 4) == 0).sum(2) == 2).all())
    assert int((second == 0).sum()) == round(0.85 * 60)
    assert bool((third != 0).all())


def test_the_schedule_between_start_and_end() -> None:
    schedule = Schedule(start=0.2, end=0.6)
    assert [schedule.share(p) for p in (0.0, 0.2, 0.6, 1.0)] == [0.0, 0.0, 1.0, 1.0]
    assert schedule.share(0.4) == pytest.approx(1 - 0.5**3)
    assert Schedule(start=0.5, end=0.5).share(0.4) == 0.0
    with pytest.raises(RequestError, match="every is 0"):
        Schedule(every=0)
    with pytest.raises(RequestError, match="must be in"):
        LayerGoal(1.0)
    with pytest.raises(RequestError, match=r"share of 0\.5 zero"):
        LayerGoal(0.7, make_pattern("2:4"))


@pytest.mark.parametrize(
    "wrong",
    [{"sparsity": 1.0}, {"sparsity": 0.5, "criterion": "taste"}, {"sparsity": 0.5, "start": 0.8}],
)
def test_nonsense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(RequestError, match=r"use|must"):
        Goal(**wrong)  # type: ignore[arg-type]
