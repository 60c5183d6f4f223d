"""Distillation losses at their known values."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from autocompress.compression.distillation import (
    distillation_loss,
    regression_loss,
    response_loss,
)
from autocompress.core.candidate import Recipe
from autocompress.errors import RequestError


def _logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_zero_exactly_at_equality(temperature: float) -> None:
    logits = _logits(6, 10)
    assert float(response_loss(logits, logits, temperature)) == pytest.approx(0, abs=1e-6)
    assert float(response_loss(logits + 3, logits, temperature)) == pytest.approx(0, abs=1e-6)
    assert float(response_loss(_logits(6, 10, seed=1), logits, temperature)) > 0.01


def test_by_hand() -> None:
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3.0), 0.0]])
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert float(response_loss(student, teacher, 1.0)) == pytest.approx(expected)
    halved = response_loss(student * 2, teacher * 2, 2.0)
    assert float(halved) == pytest.approx(4 * expected)


def test_the_mean_over_the_batch() -> None:
    student, teacher = _logits(8, 5), _logits(8, 5, seed=1)
    rows = [float(response_loss(student[i : i + 1], teacher[i : i + 1], 2.0)) for i in range(8)]
    assert float(response_loss(student, teacher, 2.0)) == pytest.approx(sum(rows) / 8, rel=1e-5)


def test_classes_of_every_pixel_are_the_second_dimension() -> None:
    student, teacher = _logits(2, 4, 3, 5), _logits(2, 4, 3, 5, seed=1)
    flat = [t.permute(0, 2, 3, 1).reshape(-1, 4) for t in (student, teacher)]
    assert float(response_loss(student, teacher, 2.0)) == pytest.approx(
        float(response_loss(flat[0], flat[1], 2.0)), rel=1e-5
    )


def test_gradients_go_to_the_student_and_vanish_at_equality() -> None:
    student, teacher = _logits(4, 6).requires_grad_(), _logits(4, 6)
    response_loss(student, teacher, 3.0).backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    assert float(student.grad.abs().max()) < 1e-6


def test_what_a_recipe_asks_for() -> None:
    student, teacher = _logits(4, 6), _logits(4, 6, seed=1)
    recipe = Recipe(temperature=2.0)
    found = distillation_loss(student, teacher, recipe, classification=True)
    assert torch.equal(found, response_loss(student, teacher, 2.0))
    found = distillation_loss(student, teacher, recipe, classification=False)
    assert torch.equal(found, regression_loss(student, teacher))
    assert torch.equal(found, F.mse_loss(student, teacher))
    with pytest.raises(RequestError, match="distillation is 'none'"):
        distillation_loss(student, teacher, Recipe(distillation="none"), classification=True)
