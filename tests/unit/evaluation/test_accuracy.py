"""The task's metric of a model, on real digits."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autocompress.errors import DivergedError
from autocompress.evaluation.accuracy import evaluate_model, outputs_of
from autocompress.evaluation.data import Data
from autocompress.evaluation.task import Task


class Knowing(nn.Module):
    """Answers the first pixel's column, whatever the image: a known accuracy."""

    def __init__(self, answer: int, classes: int = 10) -> None:
        super().__init__()
        self.answer, self.classes = answer, classes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(torch.full((len(x),), self.answer), self.classes).float()


@pytest.fixture(scope="module")
def data() -> Data:
    return Data.load("digits")


def test_a_constant_answer_is_right_as_often_as_it_occurs(data: Data) -> None:
    labels = data.val.labels
    assert labels is not None
    for answer in (0, 7):
        share = float((labels == answer).mean())
        assert evaluate_model(Knowing(answer), data.val, Task()) == pytest.approx(share)


def test_a_limit_looks_at_the_first_examples(data: Data) -> None:
    labels = data.val.labels
    assert labels is not None
    found = evaluate_model(Knowing(3), data.val, Task(), limit=50)
    assert found == pytest.approx(float((labels[:50] == 3).mean()))


def test_all_outputs_in_order(data: Data) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Dropout(0.5)).train()
    outputs, targets = outputs_of(model, data.val, batch_size=17)
    again, _ = outputs_of(model, data.val, batch_size=256)
    assert torch.allclose(outputs, again, atol=1e-6)
    assert torch.equal(targets, torch.as_tensor(data.val.labels))
    assert not outputs.requires_grad


def test_outputs_that_are_not_finite(data: Data) -> None:
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.full((len(x), 10), float("nan"))

    with pytest.raises(DivergedError, match="NaN or infinity"):
        evaluate_model(Broken(), data.val, Task())
