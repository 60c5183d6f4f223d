"""Compress a model of your own: a CIFAR-10 ResNet-20, or a small one on digits without data.

    python examples/compress_my_model.py --data DIR --budget 15m

``DIR`` holds ``train.parquet`` and ``test.parquet`` with the columns ``image`` (encoded bytes) and
``label``. The script trains the model first (``--weights FILE`` takes trained ones instead), then
searches widths, depths, ranks and bit-widths of its layers for faster and smaller versions.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn

import autocompress as ac


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.down = nn.Sequential()
        if stride != 1 or channels != out:
            self.down = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(n, channels, h, w)`` to ``(n, out, h / stride, w / stride)``."""
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.down(x))


class ResNet20(nn.Module):
    """ResNet-20 for small images (He et al. 2016, arXiv:1512.03385, section 4.2)."""

    def __init__(self, channels: int = 3, classes: int = 10, width: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = self._stage(width, width, 1)
        self.layer2 = self._stage(width, 2 * width, 2)
        self.layer3 = self._stage(2 * width, 4 * width, 2)
        self.fc = nn.Linear(4 * width, classes)

    @staticmethod
    def _stage(channels: int, out: int, stride: int) -> nn.Sequential:
        first = Block(channels, out, stride)
        return nn.Sequential(first, Block(out, out, 1), Block(out, out, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images ``(n, channels, h, w)`` to logits ``(n, classes)``."""
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: torch.Tensor = self.fc(x.mean((2, 3)))
        return logits


def train(model: nn.Module, data: ac.Data, epochs: int) -> None:
    """Plain training: SGD with momentum and a one-cycle schedule."""
    batch = 128
    steps = epochs * max(1, len(data.train) // batch)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=steps + epochs + 1)
    model.train()
    for epoch in range(epochs):
        for x, y in data.train.batches(batch, shuffle=True, seed=epoch):
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1} of {epochs}: loss {loss.item():.3f}", flush=True)
    model.eval()


def load_weights(model: nn.Module, path: Path) -> None:
    """Weights from a state dict."""
    state = torch.load(path, weights_only=True, map_location="cpu")
    model.load_state_dict(state)
    model.eval()


def main(
    data_dir: str | None = None,
    budget: str = "5m",
    weights: str | None = None,
    epochs: int = 12,
    run_dir: str | None = None,
) -> ac.SearchResult:
    """Train (or load) the model, search, and print the front with its baselines."""
    source = f"cifar10:{data_dir}" if data_dir else "digits"
    # trained weights have seen every training example: choose by half of the test examples
    data = ac.Data.load(source if weights is None else f"{source}?val=test")
    torch.manual_seed(0)
    model = ResNet20(channels=data.input_shape[0], classes=data.num_classes or 10)
    if weights is not None:
        load_weights(model, Path(weights))
    else:
        train(model, data, epochs)
    result = ac.search(model, data, device="local", budget=budget, run_dir=run_dir)
    columns = ["name", "accuracy", "latency_ms", "size_bytes"]
    print(result.baseline[columns].to_string())
    print(result.pareto[[*columns, "speedup", "size_ratio", "changes"]].to_string())
    print("report:", result.run_dir / "report.html")
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=None, help="folder with train.parquet and test.parquet")
    parser.add_argument("--budget", default="5m")
    parser.add_argument("--weights", default=None, help="state dict of trained weights")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--run-dir", default=None)
    given = parser.parse_args()
    main(given.data, given.budget, given.weights, given.epochs, given.run_dir)
