"""Sparsity that grows: the schedule, the criteria, and what training leaves of it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from autocompress.compression.gradual import (
    CRITERIA,
    Goal,
    GradualSparsity,
    choose_masks,
    cubic,
    layer_adaptive,
)
from autocompress.errors import RequestError


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_schedule_rises_from_nothing_to_all(one: float, two: float) -> None:
    assert cubic(0) == 0
    assert cubic(1) == 1
    assert cubic(-1) == 0
    assert cubic(2) == 1
    assert (cubic(one) <= cubic(two)) == (one <= two) or cubic(one) == cubic(two)


@given(st.floats(0, 0.99), st.sampled_from(sorted(CRITERIA)), st.booleans(), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_as_many_zeros_as_asked_for(
    sparsity: float, criterion: str, across: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: torch.randn(shape, generator=generator)
        for name, shape in {"a": (7, 11), "b": (3, 4, 3, 3), "c": (1, 5)}.items()
    }
    masks = choose_masks(weights, sparsity, criterion, across=across)
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
    scores = layer_adaptive({"w": torch.tensor([[3.0, -1.0], [2.0, 0.0]])})["w"]
    assert scores.tolist() == [[1.0, pytest.approx(1 / 14)], [pytest.approx(4 / 13), 0.0]]


def test_the_largest_weight_of_each_layer_stays() -> None:
    weights = {"small": 1e-3 * torch.randn(4, 4), "large": 1e3 * torch.randn(4, 4)}
    masks = choose_masks(weights, 0.9, "layer_adaptive", across=True)
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


@pytest.mark.parametrize(
    "wrong",
    [{"sparsity": 1.0}, {"sparsity": 0.5, "criterion": "taste"}, {"sparsity": 0.5, "start": 0.8}],
)
def test_nonsense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(RequestError, match=r"use|must"):
        Goal(**wrong)  # type: ignore[arg-type]
