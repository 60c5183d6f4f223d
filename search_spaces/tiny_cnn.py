"""A small convolutional network for images of 8 to 96 pixels.

A stem, three stages and a linear classifier. Each stage starts with a transition (which may halve
the resolution) and holds two residual blocks. Choices: the depth of each stage (blocks dropped
from its end), dense or depthwise-separable for every transition and block, 5x5 or 3x3 depthwise
kernels, the width of every channel group, and the compression of every layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from autocompress.core.space import Choice
from autocompress.errors import RequestError
from autocompress.graph.alternatives import OneOf

WIDTHS = (32, 64, 128)
BLOCKS_PER_STAGE = 2
KERNELS = (5, 3)


def _dense(channels: int, out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, 3, stride, 1, bias=False),
        nn.BatchNorm2d(out),
    )


def _separable(channels: int, out: int, stride: int) -> nn.Sequential:
    kernel = max(KERNELS)
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, out, 1, bias=False),
        nn.BatchNorm2d(out),
    )


class Transition(nn.Module):
    """To another width and, with stride 2, half the resolution."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.body = OneOf(
            {"dense": _dense(channels, out, stride), "separable": _separable(channels, out, stride)}
        )
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(n, channels, h, w)`` to ``(n, out, h / stride, w / stride)``."""
        out: torch.Tensor = self.act(self.body(x))
        return out


class Residual(nn.Module):
    """``relu(x + body(x))``; a candidate may skip it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = OneOf(
            {
                "dense": nn.Sequential(
                    *_dense(channels, channels, 1), nn.ReLU(), *_dense(channels, channels, 1)
                ),
                "separable": _separable(channels, channels, 1),
            }
        )
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape kept."""
        out: torch.Tensor = self.act(x + self.body(x))
        return out


class TinyCNN(nn.Module):
    """The space's largest network, with every branch in place.

    Args:
        channels: input channels.
        size: input height and width; up to 16 pixels the first stage keeps the resolution.
        classes: outputs.
    """

    def __init__(self, channels: int, size: int, classes: int) -> None:
        super().__init__()
        first = 1 if size <= 48 else 2
        self.stem = nn.Sequential(
            nn.Conv2d(channels, WIDTHS[0], 3, first, 1, bias=False),
            nn.BatchNorm2d(WIDTHS[0]),
            nn.ReLU(),
        )
        stages: list[nn.Module] = []
        previous = WIDTHS[0]
        for i, width in enumerate(WIDTHS):
            stride = 2 if i or size > 16 else 1
            blocks = [Residual(width) for _ in range(BLOCKS_PER_STAGE)]
            stages.append(nn.Sequential(Transition(previous, width, stride), *blocks))
            previous = width
        self.stages = nn.Sequential(*stages)
        self.classifier = nn.Linear(previous, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images ``(n, channels, size, size)`` to logits ``(n, classes)``."""
        logits: torch.Tensor = self.classifier(self.stages(self.stem(x)).mean((2, 3)))
        return logits


def largest(*, input_shape: Sequence[int], num_classes: int) -> nn.Module:
    """The network that contains every candidate.

    Args:
        input_shape: ``(channels, height, width)``, at least 8 pixels each way.
        num_classes: outputs.

    Raises:
        RequestError: the input is no image, or too small.
    """
    if len(input_shape) != 3 or min(input_shape[1:]) < 8:
        raise RequestError(
            f"space tiny_cnn needs images (channels, height, width) of at least 8 pixels; "
            f"its inputs would have the shape {tuple(input_shape)}"
        )
    return TinyCNN(int(input_shape[0]), int(max(input_shape[1:])), num_classes)


def architecture(model: nn.Module) -> list[Choice]:
    """Kernel sizes of the depthwise layers; depths and branches are found in the model itself."""
    return [
        Choice(f"kernel:{name}", KERNELS, "architecture")
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.groups > 1
    ]
