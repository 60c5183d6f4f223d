"""What a good output is: the loss trained with and the metric reported."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch.nn import functional as F

from autocompress.errors import DataError

Loss: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Score: TypeAlias = Callable[[torch.Tensor, torch.Tensor], float | torch.Tensor]


def top1(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    """Share of examples whose largest output is the target; outputs ``(n, classes, ...)``."""
    return float((outputs.argmax(1) == targets).double().mean())


def cross_entropy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of logits ``(n, classes, ...)`` against class labels ``(n, ...)``."""
    return F.cross_entropy(outputs, targets)


def mean_squared_error(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean squared error; outputs and targets of one shape."""
    if outputs.shape != targets.shape:
        raise ValueError(f"shapes differ: {tuple(outputs.shape)} and {tuple(targets.shape)}")
    return F.mse_loss(outputs, targets)


def mean_absolute_error(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    """Mean absolute error; outputs and targets of one shape."""
    if outputs.shape != targets.shape:
        raise ValueError(f"shapes differ: {tuple(outputs.shape)} and {tuple(targets.shape)}")
    return float((outputs - targets).abs().double().mean())


@dataclass(frozen=True, slots=True)
class Task:
    """The loss candidates are trained with and the metric they are judged by.

    The default is classification: cross entropy, and top-1 as a share.

    Attributes:
        loss: from ``(outputs, targets)`` of a batch to a scalar tensor with a gradient.
        metric: from the concatenated outputs and targets of a split to one number.
        higher_is_better: which way the metric goes.
        name: for reports, and named in errors.

    Callables must be picklable with cloudpickle; evaluations run in worker processes.
    """

    loss: Loss = cross_entropy
    metric: Score = top1
    higher_is_better: bool = True
    name: str = "classification"

    def __post_init__(self) -> None:
        for what in ("loss", "metric"):
            if not callable(getattr(self, what)):
                raise DataError(
                    f"task {what} is {getattr(self, what)!r}; give a function of (outputs, targets)"
                )

    @classmethod
    def regression(cls) -> Task:
        """Mean squared error to train with, mean absolute error to report; smaller is better."""
        return cls(mean_squared_error, mean_absolute_error, False, "regression")

    @property
    def gives_logits(self) -> bool:
        """Whether the outputs are scores of classes: trained by cross entropy, or judged by top-1.

        Then they are distilled as distributions, and compared by their largest.
        """
        return self.loss is cross_entropy or self.metric is top1

    @property
    def metric_is_share(self) -> bool:
        """Whether the metric is a share of the examples, with a binomial interval."""
        return self.metric is top1

    def evaluate(self, outputs: torch.Tensor, targets: torch.Tensor) -> float:
        """The metric over all of a split's outputs and targets.

        Raises:
            DataError: the metric raises, or gives no finite number.
        """
        try:
            value = float(self.metric(outputs, targets))
        except Exception as error:
            raise DataError(self._misfit("metric", outputs, targets, error)) from error
        if not math.isfinite(value):
            raise DataError(f"task {self.name!r}: the metric gave {value}; it must be finite")
        return value

    def score(self, value: float) -> float:
        """The metric's value turned so that larger is better."""
        return value if self.higher_is_better else -value

    def drop(self, baseline: float, value: float) -> float:
        """How much worse ``value`` is than ``baseline``, in the metric's unit; < 0 is better."""
        return self.score(baseline) - self.score(value)

    def check(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Make sure that a model's outputs fit the targets, before anything is spent on them.

        Args:
            outputs: what the model gives for a batch, batch first.
            targets: that batch's targets.

        Raises:
            DataError: they do not fit; the message names both shapes.
        """
        if not isinstance(outputs, torch.Tensor):
            raise DataError(
                f"the model gives a {type(outputs).__name__}; it must give one tensor, batch first"
            )
        if outputs.ndim == 0 or targets.ndim == 0 or len(outputs) != len(targets):
            raise DataError(
                f"the model gives outputs of shape {tuple(outputs.shape)} for {len(targets)} "
                "targets; the first dimension must be the batch"
            )
        if self.gives_logits:
            self._check_classes(outputs, targets)
        self._check_loss(outputs, targets)
        self.evaluate(outputs.detach(), targets)

    def _check_classes(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        if targets.is_floating_point():
            raise DataError(
                f"the targets are {str(targets.dtype).removeprefix('torch.')}, but task "
                f"{self.name!r} needs class labels (integers); "
                "for regression give ac.Task(loss=..., metric=..., higher_is_better=...)"
            )
        expected = (outputs.shape[0], *outputs.shape[2:])
        if outputs.ndim < 2 or tuple(targets.shape) != expected:
            raise DataError(
                f"the model gives outputs of shape {tuple(outputs.shape)}, the targets have shape "
                f"{tuple(targets.shape)}; classification needs (n, classes) and (n,)"
            )
        classes = outputs.shape[1]
        if int(targets.max()) >= classes:
            raise DataError(
                f"the data holds label {int(targets.max())}, but the model gives only {classes} "
                f"classes (labels 0 to {classes - 1})"
            )

    def _check_loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        try:
            value = self.loss(outputs, targets)
        except Exception as error:
            raise DataError(self._misfit("loss", outputs, targets, error)) from error
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            what = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            raise DataError(f"task {self.name!r}: the loss gives {what}; it must give one number")
        if not bool(torch.isfinite(value).all()):
            raise DataError(
                f"task {self.name!r}: the loss of the first batch is {float(value)}; check the "
                "model's weights and the scale of inputs and targets"
            )

    def _misfit(
        self, what: str, outputs: torch.Tensor, targets: torch.Tensor, error: Exception
    ) -> str:
        return (
            f"task {self.name!r}: the {what} failed on outputs of shape {tuple(outputs.shape)} and "
            f"targets of shape {tuple(targets.shape)}: {type(error).__name__}: {error}"
        )
