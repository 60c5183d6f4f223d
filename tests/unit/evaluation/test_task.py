from __future__ import annotations

from dataclasses import replace
from typing import Any

import cloudpickle
import pytest
import torch

from autocompress.errors import DataError
from autocompress.evaluation.task import Task, top1


def mae(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    return float((outputs - targets).abs().mean())


def test_classification_by_default() -> None:
    task = Task()
    outputs = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0]])
    targets = torch.tensor([0, 1, 1])

    assert task.evaluate(outputs, targets) == pytest.approx(2 / 3)
    assert task.gives_logits
    assert task.metric_is_share
    assert task.drop(0.9, 0.88) == pytest.approx(0.02)
    task.check(outputs, targets)


def test_dense_classification() -> None:
    Task().check(torch.randn(2, 5, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64))


def test_regression_is_better_when_smaller() -> None:
    task = Task.regression()
    outputs, targets = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.5], [2.0]])

    task.check(outputs, targets)
    assert task.evaluate(outputs, targets) == pytest.approx(0.25)
    assert task.score(0.25) == -0.25
    assert task.drop(0.2, 0.25) == pytest.approx(0.05)
    assert not task.gives_logits
    assert not task.metric_is_share


def test_custom_callables_travel_to_worker_processes() -> None:
    scale = 2.0
    task = Task(lambda o, t: scale * (o - t).abs().mean(), mae, False, "mine")
    copy: Task = cloudpickle.loads(cloudpickle.dumps(task))
    assert copy.loss(torch.ones(2), torch.zeros(2)) == 2.0
    assert cloudpickle.loads(cloudpickle.dumps(Task())).metric is top1


LABELS = torch.tensor([0, 1])
BAD: dict[str, tuple[Task, Any, torch.Tensor, str]] = {
    "too few classes": (
        Task(),
        torch.randn(2, 10),
        torch.tensor([0, 10]),
        "holds label 10, but the model gives only 10 classes",
    ),
    "batch lost": (Task(), torch.randn(1, 10), LABELS, r"shape \(1, 10\) for 2 targets"),
    "flat outputs": (Task(), torch.randn(2), LABELS, r"outputs of shape \(2,\)"),
    "spatial outputs": (Task(), torch.randn(2, 10, 1, 1), LABELS, r"\(2, 10, 1, 1\)"),
    "one-hot": (Task(), torch.randn(2, 2), torch.eye(2, dtype=torch.int64), "targets have shape"),
    "floats": (Task(), torch.randn(2, 2), torch.randn(2), "for regression give ac.Task"),
    "two outputs": (Task(), (torch.randn(2, 2), None), LABELS, "gives a tuple"),
    "nan": (Task(), torch.full((2, 2), float("nan")), LABELS, "loss of the first batch is nan"),
    "broadcast": (
        Task.regression(),
        torch.randn(2, 1),
        torch.randn(2),
        r"loss failed on .* shapes differ: \(2, 1\) and \(2,\)",
    ),
    "loss raises": (
        Task(lambda o, t: 1 / 0, mae),  # type: ignore[arg-type,return-value]
        torch.randn(2, 2),
        torch.randn(2, 2),
        "the loss failed .* ZeroDivisionError",
    ),
    "loss per example": (
        Task(lambda o, t: (o - t).abs(), mae),
        torch.randn(2, 2),
        torch.randn(2, 2),
        "must give one number",
    ),
    "metric raises": (
        replace(Task.regression(), metric=lambda o, t: float(o)),
        torch.randn(2, 2),
        torch.randn(2, 2),
        "the metric failed on outputs",
    ),
    "metric nan": (
        replace(Task.regression(), metric=lambda o, t: float("nan")),
        torch.randn(2, 2),
        torch.randn(2, 2),
        "the metric gave nan",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_outputs_that_do_not_fit_are_refused(case: str) -> None:
    task, outputs, targets, message = BAD[case]
    with pytest.raises(DataError, match=message):
        task.check(outputs, targets)


def test_something_not_callable_is_refused() -> None:
    with pytest.raises(DataError, match="task loss is 'mse'"):
        Task(loss="mse")  # type: ignore[arg-type]
