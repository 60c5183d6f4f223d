"""Inverted residuals with squeeze-and-excitation, for images of 32 to 224 pixels.

In the manner of MobileNetV3 (Howard et al. 2019, arXiv:1905.02244) with the choices of
once-for-all networks (Cai et al. 2020, arXiv:1908.09791): a stem, a block without expansion, five
stages of up to four blocks, and V3's head. The resolution is halved as often as leaves at least
four pixels, in the last of the places that halve at 224. ReLU up to the second stage, hard-swish
elsewhere.

Choices: the resolution (images resized inside the model, down to half, but not below 16 pixels,
and halved as often as full ones), the depth of each stage (blocks dropped from its end; its first
one stays), 7x7, 5x5 or 3x3 depthwise kernels, squeeze-and-excitation or none in every block and its
inner width, the expansion of every block (its inner width, from 6 times its input's down to a
quarter of that), the residual width of each stage, and the compression of every layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from autocompress.core.space import Choice
from autocompress.errors import RequestError
from autocompress.graph.alternatives import OneOf
from autocompress.graph.resizing import Resize, usual_heights

#: Channels of the stem, and of each stage.
STEM = 16
STAGES = (24, 40, 80, 112, 160)
#: Of the stages, those whose first block halves the resolution.
HALVING = (0, 1, 2, 4)
BLOCKS_PER_STAGE = 4
EXPANSION = 6
KERNELS = (7, 5, 3)
#: Stages with ReLU; the later ones have hard-swish.
RELU_STAGES = 2
#: Channels of the head's convolution and of its linear layer.
HEAD = (960, 1280)
SMALLEST_INPUT, LARGEST_INPUT = 32, 224


def halvings(size: int) -> int:
    """How often an image is halved: at least four pixels are left, after five at most."""
    return min(1 + len(HALVING), (size // 4).bit_length() - 1)


class SqueezeExcitation(nn.Module):
    """Scales channels by what a small network reads from their means (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = max(8, channels // 32 * 8)  # a quarter, in steps of 8
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.excite = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape kept."""
        means = x.mean((2, 3), keepdim=True)
        scales = nn.functional.hardsigmoid(self.excite(nn.functional.relu(self.squeeze(means))))
        return x * scales


class InvertedResidual(nn.Module):
    """Expand, convolve each channel, excite or not, project; a candidate may skip residual ones.

    Args:
        channels: of the input.
        out: channels of the output.
        stride: of the depthwise convolution.
        expansion: inner channels for each of the input's; with 1 there is no expanding layer.
        act: the activation's class.
    """

    def __init__(
        self, channels: int, out: int, stride: int, expansion: int, act: type[nn.Module]
    ) -> None:
        super().__init__()
        inner, kernel = expansion * channels, max(KERNELS)
        expand = [nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner), act()]
        self.expand = nn.Sequential(*(expand if expansion > 1 else ()))
        self.depthwise = nn.Sequential(
            nn.Conv2d(inner, inner, kernel, stride, kernel // 2, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
            act(),
        )
        self.excitation = OneOf({"squeeze": SqueezeExcitation(inner), "none": nn.Identity()})
        self.project = nn.Sequential(nn.Conv2d(inner, out, 1, bias=False), nn.BatchNorm2d(out))
        self.residual = stride == 1 and channels == out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(n, channels, h, w)`` to ``(n, out, h / stride, w / stride)``."""
        y: torch.Tensor = self.project(self.excitation(self.depthwise(self.expand(x))))
        return x + y if self.residual else y


class MobileCNN(nn.Module):
    """The space's largest network, with every branch in place.

    Args:
        channels: input channels.
        size: the smaller of the input's height and width.
        classes: outputs.
        heights: smaller ones that images may be resized to.
    """

    def __init__(self, channels: int, size: int, classes: int, heights: Sequence[int] = ()) -> None:
        super().__init__()
        self.resize = Resize(heights) if heights else nn.Identity()
        late = HALVING[len(HALVING) - min(len(HALVING), halvings(size)) :]
        self.stem = nn.Sequential(
            nn.Conv2d(channels, STEM, 3, 2 if halvings(size) > len(HALVING) else 1, 1, bias=False),
            nn.BatchNorm2d(STEM),
            nn.Hardswish(),
        )
        self.entry = InvertedResidual(STEM, STEM, 1, 1, nn.ReLU)
        stages: list[nn.Module] = []
        previous = STEM
        for i, width in enumerate(STAGES):
            act: type[nn.Module] = nn.ReLU if i < RELU_STAGES else nn.Hardswish
            first = InvertedResidual(previous, width, 2 if i in late else 1, EXPANSION, act)
            rest = (
                InvertedResidual(width, width, 1, EXPANSION, act)
                for _ in range(BLOCKS_PER_STAGE - 1)
            )
            stages.append(nn.Sequential(first, *rest))
            previous = width
        self.stages = nn.Sequential(*stages)
        self.head = nn.Sequential(
            nn.Conv2d(previous, HEAD[0], 1, bias=False), nn.BatchNorm2d(HEAD[0]), nn.Hardswish()
        )
        self.hidden = nn.Sequential(nn.Linear(*HEAD), nn.Hardswish(), nn.Dropout(0.2))
        self.classifier = nn.Linear(HEAD[1], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images ``(n, channels, height, width)`` to logits ``(n, classes)``."""
        features = self.head(self.stages(self.entry(self.stem(self.resize(x))))).mean((2, 3))
        logits: torch.Tensor = self.classifier(self.hidden(features))
        return logits


def largest(*, input_shape: Sequence[int], num_classes: int) -> nn.Module:
    """The network that contains every candidate.

    Args:
        input_shape: ``(channels, height, width)``, 32 to 224 pixels each way.
        num_classes: outputs.

    Raises:
        RequestError: the input is no image, or of another size.
    """
    sizes = input_shape[1:]
    if len(input_shape) != 3 or min(sizes) < SMALLEST_INPUT or max(sizes) > LARGEST_INPUT:
        raise RequestError(
            f"space mobile_cnn needs images (channels, height, width) of {SMALLEST_INPUT} to "
            f"{LARGEST_INPUT} pixels; its inputs would have the shape {tuple(input_shape)}"
        )
    heights = usual_heights(int(sizes[0]))
    return MobileCNN(int(input_shape[0]), int(min(sizes)), num_classes, heights)


def architecture(model: nn.Module) -> list[Choice]:
    """Kernel sizes of the depthwise layers; depths and branches are found in the model itself."""
    return [
        Choice(f"kernel:{name}", KERNELS, "architecture")
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.groups > 1
    ]
