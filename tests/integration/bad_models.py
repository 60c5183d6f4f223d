"""Models for ``--model FILE.py:FUNCTION``, most of which cannot be searched."""

from __future__ import annotations

import torch
from torch import nn

from tests.integration.runs import SmallCNN


def colour() -> nn.Module:
    """Wants images of three channels."""
    return SmallCNN(channels=3)


def nine_classes() -> nn.Module:
    """Cannot answer 9."""
    return SmallCNN(classes=9)


def nan_weights() -> nn.Module:
    """Was trained until it broke."""
    model = SmallCNN()
    nn.init.constant_(model.head.weight, float("nan"))
    return model


def double() -> nn.Module:
    """Computes in 64 bits."""
    return SmallCNN().double()


class Flat(nn.Module):
    """Has nothing to learn."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Ten pixels."""
        return x.flatten(1)[:, :10]


def flat() -> nn.Module:
    """Has no layers."""
    return Flat()


class Branching(SmallCNN):
    """Looks at its input's values."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Different code for dark images."""
        if x.mean() < 0.1:
            return super().forward(2 * x)
        return super().forward(x)


def branching() -> nn.Module:
    """Has control flow that depends on the data."""
    return Branching()


class Pair(SmallCNN):
    """Has two answers."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        """The answer, twice."""
        y = super().forward(x)
        return y, y


def pair() -> nn.Module:
    """Returns a tuple."""
    return Pair()


def raising() -> nn.Module:
    """Cannot be made."""
    raise OSError("no licence")


def text() -> str:
    """Is no model."""
    return "resnet20"


def small() -> nn.Module:
    """Is a good one, the same every time, for requests that are wrong elsewhere."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SmallCNN().eval()
