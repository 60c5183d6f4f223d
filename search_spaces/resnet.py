"""Residual networks of basic blocks, for small images (CIFAR's stem) and large ones (ImageNet's).

He et al. 2016, Deep Residual Learning for Image Recognition, arXiv:1512.03385. Images of up to 64
pixels get a 3x3 stem and three stages of five blocks, of 16, 32 and 64 channels: ResNet-32, with
ResNet-20 and smaller ones inside. Larger ones get a 7x7 stem with max pooling and stages of 3, 4,
6 and 3 blocks, of 64 to 512 channels: ResNet-34, with ResNet-18 inside. Shortcuts that change the
shape are projections.

Choices: the resolution (images resized inside the model, down to half), the depth of each stage
(blocks dropped from its end; those that change the shape stay), the residual width of each stage,
the inner width of each block, and the compression of every layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from autocompress.errors import RequestError
from autocompress.graph.resizing import Resize, usual_heights

#: Images of more pixels than this, in either direction, get the stem for large ones.
LARGEST_SMALL = 64
#: Channels and blocks of each stage, for small and for large images.
SMALL = ((16, 5), (32, 5), (64, 5))
LARGE = ((64, 3), (128, 4), (256, 6), (512, 3))


def _conv(channels: int, out: int, kernel: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(out),
    ]


class BasicBlock(nn.Module):
    """``relu(shortcut(x) + body(x))``; a candidate may skip it where the shortcut is the input."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv(channels, out, 3, stride), nn.ReLU(), *_conv(out, out, 3, 1)
        )
        same = stride == 1 and channels == out
        self.shortcut = nn.Identity() if same else nn.Sequential(*_conv(channels, out, 1, stride))
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(n, channels, h, w)`` to ``(n, out, h / stride, w / stride)``."""
        out: torch.Tensor = self.act(self.shortcut(x) + self.body(x))
        return out


class ResNet(nn.Module):
    """The space's largest network.

    Args:
        channels: input channels.
        size: the larger of the input's height and width.
        classes: outputs.
        width: multiplies every stage's channels.
        heights: smaller ones that images may be resized to.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        classes: int,
        width: float = 1.0,
        heights: Sequence[int] = (),
    ) -> None:
        super().__init__()
        large = size > LARGEST_SMALL
        plan = [(round(width * out), blocks) for out, blocks in (LARGE if large else SMALL)]
        previous = plan[0][0]
        stem = _conv(channels, previous, 7, 2) if large else _conv(channels, previous, 3, 1)
        pool = [nn.MaxPool2d(3, 2, 1)] if large else []
        self.resize = Resize(heights) if heights else nn.Identity()
        self.stem = nn.Sequential(*stem, nn.ReLU(), *pool)
        stages: list[nn.Module] = []
        for i, (out, count) in enumerate(plan):
            first = BasicBlock(previous, out, 2 if i else 1)
            stages.append(
                nn.Sequential(first, *(BasicBlock(out, out, 1) for _ in range(count - 1)))
            )
            previous = out
        self.stages = nn.Sequential(*stages)
        self.classifier = nn.Linear(previous, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images ``(n, channels, height, width)`` to logits ``(n, classes)``."""
        features = self.stages(self.stem(self.resize(x))).mean((2, 3))
        logits: torch.Tensor = self.classifier(features)
        return logits


def largest(*, input_shape: Sequence[int], num_classes: int, width: float = 1.0) -> nn.Module:
    """The network that contains every candidate.

    Args:
        input_shape: ``(channels, height, width)``, at least 8 pixels each way.
        num_classes: outputs.
        width: multiplies every stage's channels; 2 has ResNets of twice the usual width inside.

    Raises:
        RequestError: the input is no image, or too small; the width leaves a stage no channels.
    """
    if len(input_shape) != 3 or min(input_shape[1:]) < 8:
        raise RequestError(
            f"space resnet needs images (channels, height, width) of at least 8 pixels; "
            f"its inputs would have the shape {tuple(input_shape)}"
        )
    if not 0.125 <= width <= 16:
        raise RequestError(f"space resnet: width is {width!r}; give a factor of 0.125 to 16")
    channels, height, breadth = (int(n) for n in input_shape)
    heights = usual_heights(height)
    return ResNet(channels, max(height, breadth), num_classes, width, heights)
