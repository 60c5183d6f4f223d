"""The trained ResNet-20 that lies beside the data sets: CIFAR-10, widths 16, 32 and 64."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

FILE = "cifar10_resnet20.pt"


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut, a 1x1 convolution where shapes change."""

    def __init__(self, given: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(given, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.down = nn.Sequential()
        if stride != 1 or given != channels:
            self.down.append(nn.Conv2d(given, channels, 1, stride, bias=False))
            self.down.append(nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(n, given, h, w)`` to ``(n, channels, h / stride, w / stride)``."""
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.down(x))


class ResNet20(nn.Module):
    """He et al. 2016, arXiv:1512.03385, section 4.2."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.fc = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits, shape ``(n, 10)``, of normalised images ``(n, 3, 32, 32)``."""
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        y: torch.Tensor = self.fc(x.mean((2, 3)))
        return y


def trained_resnet20(data: Path) -> ResNet20:
    """The network with its weights, in evaluation mode.

    Args:
        data: the folder of data sets; the models lie in ``models`` beside it.

    Raises:
        SystemExit: they do not.
    """
    path = data.parent / "models" / FILE
    if not path.is_file():
        raise SystemExit(f"there is no {path}, the trained ResNet-20")
    model = ResNet20()
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()
