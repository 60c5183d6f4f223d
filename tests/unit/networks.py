"""Small networks for tests: each has one trait that a compressor can get wrong."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn
from torch.nn import functional as F

from autocompress.compression.registry import make_techniques
from autocompress.core.capabilities import Capabilities
from autocompress.elastic.registry import load_space
from autocompress.elastic.space import ElasticSpace
from autocompress.graph.inspect import inspect_model
from autocompress.graph.model_graph import ModelGraph

torch.set_num_threads(1)

#: A device that offers every gene, in steps small enough for small networks.
EVERYTHING = Capabilities(channel_step=4, rank_step=4, stores_packed=True)


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """``model`` in evaluation mode with weights and statistics that hide no mistake.

    Fresh batch norms are the identity and fresh biases often zero, under which channels mixed up
    in one place go unnoticed.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module.running_mean is not None and module.running_var is not None:
                module.running_mean.normal_(0, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
                nn.init.normal_(module.bias, 0, 0.2, generator=generator)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.normal_(module.bias, 0, 0.2, generator=generator)
    return model.eval()


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside the identity, or beside a 1x1 convolution."""

    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or channels != out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """The shape of ResNet-20, narrower: three stages of three blocks."""

    def __init__(self, channels: int = 3, classes: int = 10, widths: tuple[int, ...] = (8, 16, 24)):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        previous = widths[0]
        for i, width in enumerate(widths, 1):
            first = BasicBlock(previous, width, 1 if i == 1 else 2)
            blocks = [BasicBlock(width, width) for _ in range(2)]
            setattr(self, f"layer{i}", nn.Sequential(first, *blocks))
            previous = width
        self.stages = len(widths)
        self.fc = nn.Linear(previous, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for i in range(self.stages):
            x = getattr(self, f"layer{i + 1}")(x)
        logits: torch.Tensor = self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return logits


class InvertedResidual(nn.Module):
    """MobileNetV2's block: expand, depthwise, project, with the identity where shapes allow."""

    def __init__(self, channels: int, out: int, stride: int, kernel: int = 3) -> None:
        super().__init__()
        hidden = 3 * channels
        self.body = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(inplace=True),
            nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.Hardswish(inplace=True),
            nn.Conv2d(hidden, out, 1, bias=False),
            nn.BatchNorm2d(out),
        )
        self.identity = stride == 1 and channels == out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.body(x)
        return x + y if self.identity else y


class MobileNet(nn.Module):
    """A few inverted residual blocks and a classifier with dropout."""

    def __init__(self, channels: int = 3, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(inplace=True)
        )
        self.blocks = nn.Sequential(
            InvertedResidual(8, 12, 1),
            InvertedResidual(12, 12, 1, kernel=5),
            InvertedResidual(12, 16, 2),
            InvertedResidual(16, 16, 1),
            InvertedResidual(16, 16, 1),
        )
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(16, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))  # type: ignore[no-any-return]


class Perceptron(nn.Module):
    """Linear layers with batch norm, over a flattened image."""

    def __init__(self, features: int = 48, classes: int = 5) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(features, 32),
            nn.BatchNorm1d(32),
            nn.ReLU(),
            nn.Linear(32, 24),
            nn.ReLU(),
            nn.Linear(24, classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


class Flattened(nn.Module):
    """Each of the convolution's channels becomes 16 features of the linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.fc = nn.Linear(8 * 16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(F.max_pool2d(F.relu(self.conv(x)), 2).flatten(1))
        return logits


class Concatenated(nn.Module):
    """Two branches side by side, and one of them again."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 6, 3, padding=1)
        self.right = nn.Conv2d(3, 4, 1)
        self.join = nn.Conv2d(16, 8, 1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = F.relu(self.left(x)), self.right(x)
        y = torch.cat([left, right, torch.sigmoid(left)], 1)
        logits: torch.Tensor = self.fc(F.relu(self.join(y)).mean((2, 3)))
        return logits


def example(size: int = 8, batch: int = 2, seed: int = 0) -> torch.Tensor:
    """Random images, shape ``(batch, 3, size, size)``."""
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


SPACES = ("resnet", "tiny_cnn", "mobilenet")


@cache
def model(name: str) -> nn.Module:
    """The model behind a space of :data:`SPACES`; never changed by a test."""
    if name == "resnet":
        return randomise(ResNet())
    if name == "mobilenet":
        return randomise(MobileNet())
    raise KeyError(name)


@cache
def space(name: str) -> ElasticSpace:
    """A captured space with all techniques, for inputs ``(n, 3, 16, 16)``; read only."""
    techniques = make_techniques(None)
    if name in {"tiny_cnn", "vit"}:
        made = load_space(
            name, input_shape=(3, 16, 16), num_classes=10,
            techniques=techniques, capabilities=EVERYTHING,
        )  # fmt: skip
        randomise(made.graph.module)
        return made
    return ElasticSpace.from_model(
        model(name), (example(16),), name=name, techniques=techniques, capabilities=EVERYTHING
    )


_GRAPHS: dict[type[nn.Module], ModelGraph] = {}


def graph(kind: type[nn.Module]) -> ModelGraph:
    """A captured network of this class; read only."""
    for name, known in (("resnet", ResNet), ("mobilenet", MobileNet)):
        if kind is known:  # captured anyway
            return space(name).graph
    if kind not in _GRAPHS:
        _GRAPHS[kind] = inspect_model(randomise(kind()), (example(),))
    return _GRAPHS[kind]
